const ws = new WebSocket(`ws://localhost:8000/ws/jobs/${jobId}?token=${token}`);

ws.onmessage = (event) => {
  const data = JSON.parse(event.data);
  
  switch(data.type) {
    case 'progress':
      console.log(`Progress: ${data.progress.percentage}%`);
      break;
    case 'preview':
      // Decode and display preview
      const img = new Image();
      img.src = `data:image/png;base64,${data.preview.data}`;
      document.body.appendChild(img);
      break;
    case 'completed':
      console.log('Job completed!', data.artifacts);
      ws.close();
      break;
    case 'error':
      console.error('Job error:', data.error);
      break;
  }
};

ws.onerror = (error) => {
  console.error('WebSocket error:', error);
};

ws.onclose = () => {
  console.log('Connection closed');
};

// Send ping every 30 seconds to keep connection alive
setInterval(() => {
  ws.send(JSON.stringify({type: 'ping'}));
}, 30000);
