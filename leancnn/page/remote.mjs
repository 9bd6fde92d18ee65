// The same as classify.mjs to the page, with the network at the server that the page came from.

export async function load() {
  const response = await fetch("about");
  if (!response.ok) throw new Error(`the server says ${response.status}`);
  return new Remote(await response.json());
}

class Remote {
  constructor({ name, classes, size }) {
    Object.assign(this, { name, classes, size, level: "server" });
  }

  run() {} // nothing to compile

  async classify(picture, { top = 5 } = {}) {
    const begin = performance.now();
    const body = picture instanceof Blob ? picture : await drawn(picture);
    const headers = { "content-type": "application/octet-stream" };
    const response = await fetch(`predict?top=${top}`, { method: "POST", body, headers });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    const [{ label, probability, top: best }] = answer.predictions;
    const { milliseconds } = answer;
    return { label, probability, top: best, milliseconds, preparation: performance.now() - begin - milliseconds };
  }
}

async function drawn(video) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth || video.width, video.videoHeight || video.height];
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
