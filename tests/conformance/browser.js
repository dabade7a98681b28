// What the JavaScript example finds in a browser and not in Node; loaded before it, which is run as it stands.
// The job and the token come from the environment: arguments can be read by everybody on the machine.
globalThis.jobId = process.env.JOB_ID;
globalThis.token = process.env.TOKEN;

// Pictures are shown by checking that what they are given begins as a PNG does.
globalThis.Image = class {
  set src(url) {
    const bytes = Buffer.from(url.slice(url.indexOf(',') + 1), 'base64');
    this.shown = url.startsWith('data:image/png;base64,') && bytes.subarray(1, 4).toString() === 'PNG';
  }
};
globalThis.document = { body: { appendChild: (image) => console.log('picture', image.shown) } };

// The 30 seconds between two pings are over when the first message has come.
let everyHalfMinute;
globalThis.setInterval = (callback, milliseconds) => { everyHalfMinute = { callback, milliseconds }; };
globalThis.WebSocket = class extends WebSocket {
  constructor(url) {
    super(url);
    this.addEventListener('message', () => everyHalfMinute.callback(), { once: true });
    this.addEventListener('message', (event) => {
      if (JSON.parse(event.data).type === 'pong') console.log('pong', everyHalfMinute.milliseconds);
    });
  }
};
