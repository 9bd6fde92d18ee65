import { load } from "./classify.mjs";

const $ = (id) => document.getElementById(id);
const KEPT = 60; // results that stay on the page
const percent = (p) => `${(100 * p).toFixed(p > 0.0995 && p < 0.9995 ? 0 : 1)} %`;
const elapsed = (ms) => (ms < 10 ? `${ms.toFixed(2)} ms` : `${ms.toFixed(0)} ms`);

function made(name, text, attributes = {}) {
  const node = document.createElement(name);
  if (text) node.textContent = text; // names of classes and files are text, whatever they hold
  return Object.assign(node, attributes);
}

function bars(top) {
  const box = made("div", "", { className: "bars" });
  for (const { label, probability } of top) {
    const row = made("div");
    const bar = made("i");
    bar.style.setProperty("width", `${100 * probability}%`);
    row.append(bar, made("span", label), made("span", percent(probability)));
    box.append(row);
  }
  return box;
}

let classifier, camera;

function spent({ milliseconds, preparation }) {
  const [own, rest] = [elapsed(milliseconds), elapsed(preparation)];
  return classifier.level === "server" ? `server ${own}, sending ${rest}` : `network ${own}, reading and scaling ${rest}`;
}

async function show(picture, name) {
  const item = made("li");
  try {
    const answer = await classifier.classify(picture);
    const image = made("img", "", { alt: name, src: URL.createObjectURL(picture) });
    image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
    const box = made("div");
    box.append(made("div", answer.label, { className: "label" }), bars(answer.top));
    box.append(made("p", `${name}: ${spent(answer)}`, { className: "quiet" }));
    item.append(image, box);
    $("results").prepend(item);
    while ($("results").children.length > KEPT) $("results").lastChild.remove();
    $("said").textContent = `${name}: ${answer.label}, ${percent(answer.probability)}`;
  } catch (error) {
    $("errors").append(made("p", `${name}: ${error.message}`));
  }
}

async function showAll(files) {
  $("errors").replaceChildren();
  await ready;
  if (!classifier) return;
  for (const file of files) await show(file, file.name || "pasted picture");
}

function listen() {
  const drop = $("drop");
  $("files").addEventListener("change", async (event) => {
    await showAll([...event.target.files]);
    event.target.value = ""; // the same file may be chosen again
  });
  for (const kind of ["dragenter", "dragover"])
    addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    showAll([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length) showAll(files);
  });
  if (navigator.mediaDevices?.getUserMedia) $("camera").hidden = false;
  $("camera").addEventListener("click", start);
  $("stop").addEventListener("click", stop);
}

async function start() {
  $("errors").replaceChildren();
  await ready;
  if (!classifier || camera) return;
  try {
    camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    $("errors").append(made("p", `no camera: ${error.message || error.name}`));
    return;
  }
  const video = $("video");
  video.srcObject = camera;
  $("live").hidden = false;
  $("camera").hidden = true;
  $("stop").focus();
  await video.play();
  let count = 0, since = performance.now(), spoken = "";
  const look = async () => {
    if (!camera) return;
    if (video.videoWidth && !document.hidden) {
      const answer = await classifier.classify(video, { top: 3 });
      if (!camera) return;
      $("now").replaceChildren(made("div", answer.label, { className: "label" }), bars(answer.top));
      count++;
      const now = performance.now();
      if (now - since > 1000) {
        const rate = (1000 * count) / (now - since);
        $("speed").textContent = `network ${elapsed(answer.milliseconds)}, with scaling ${elapsed(answer.milliseconds + answer.preparation)}; ${rate.toFixed(1)} images a second`;
        if (answer.label !== spoken) $("said").textContent = spoken = answer.label;
        [count, since] = [0, now];
      }
    }
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(look);
    else requestAnimationFrame(look);
  };
  look();
}

function stop() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = undefined;
  $("video").srcObject = null;
  $("live").hidden = true;
  $("camera").hidden = false;
  $("camera").focus();
}

async function keepOffline() {
  if (!("serviceWorker" in navigator) || !globalThis.isSecureContext || !location.protocol.startsWith("http")) return;
  try {
    await navigator.serviceWorker.register("sw.js");
    const kept = await caches.open(`leancnn ${location.pathname}`);
    await kept.addAll([".", "page.css", "page.mjs", "classify.mjs", `${classifier.level}.wasm`]);
  } catch {
    // the page works, but not without the server
  }
}

const began = performance.now();
document.body.classList.add("busy");
listen();
const ready = load(globalThis.leancnnOptions).then(
  (found) => {
    classifier = found;
    document.body.classList.remove("busy");
    const { width, height, channels } = found.size;
    const names = found.classes.slice(0, 12).join(", ") + (found.classes.length > 12 ? " …" : "");
    $("about").textContent = `${found.classes.length} classes: ${names}`;
    found.run(new Uint8Array(width * height * channels)); // the first call is compiled only now
    const remote = found.level === "server";
    const where = remote ? "at the server" : `WebAssembly: ${found.level}`;
    $("facts").textContent = `${found.name}, ${width}×${height}×${channels} in, ${where}; ready after ${elapsed(performance.now() - began)}`;
    document.documentElement.dataset.ready = "yes";
    if (!globalThis.leancnnOptions && !remote) keepOffline();
  },
  (error) => {
    $("about").textContent = "";
    $("errors").append(made("p", error.message));
  },
);
