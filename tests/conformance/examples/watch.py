import websocket
import json

def on_message(ws, message):
    data = json.loads(message)
    if data["type"] == "progress":
        print(f"Progress: {data['progress']['percentage']}%")
    elif data["type"] == "preview":
        # Decode and display preview
        import base64
        preview_data = base64.b64decode(data["preview"]["data"])
    elif data["type"] == "completed":
        print("Job completed!")
        print(f"Artifacts: {data['artifacts']}")

def on_error(ws, error):
    print(f"Error: {error}")

def on_close(ws, close_status_code, close_msg):
    print("Connection closed")

ws = websocket.WebSocketApp(
    f"ws://localhost:8000/ws/jobs/{job_id}?token={token}",
    on_message=on_message,
    on_error=on_error,
    on_close=on_close
)
ws.run_forever()
