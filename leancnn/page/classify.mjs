// A network that runs here: pictures in, classes and probabilities out. See classify.d.ts.
// In pages, workers, node and bundlers; nothing is fetched but one .wasm that lies beside this file.

const MOST_PIXELS = 89478485; // as in training: Pillow's threshold for a decompression bomb
const PAGE = 65536;
const BAND = 1 << 22; // pixels that a canvas holds at once

const PROBES = {
  relaxed: [1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11],
  simd: [1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11],
  plain: [],
}; // the smallest module that needs each level, without its first eight bytes

/** The levels of WebAssembly that this engine validates, the fastest first. */
export function levels() {
  const valid = (body) => WebAssembly.validate(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, ...body]));
  return Object.keys(PROBES).filter((level) => valid(PROBES[level]));
}

const beside = {
  relaxed: () => new URL("./relaxed.wasm", import.meta.url),
  simd: () => new URL("./simd.wasm", import.meta.url),
  plain: () => new URL("./plain.wasm", import.meta.url),
};

/** Load the network. Of the levels, the first that answers a known picture rightly is taken. */
export async function load({ wasm = {}, level } = {}) {
  const wanted = level ? [level] : levels();
  const reasons = [];
  for (const name of wanted) {
    try {
      const source = wasm instanceof ArrayBuffer || ArrayBuffer.isView(wasm) || wasm instanceof URL || typeof wasm === "string"
        ? wasm : (wasm[name] ?? beside[name]());
      const bytes = await fetched(typeof source === "function" ? await source() : source);
      const { instance } = await WebAssembly.instantiate(bytes, {});
      const classifier = new Classifier(instance.exports, name);
      if (classifier.answersAsKnown()) return classifier;
      reasons.push(`${name}: a wrong answer to the known picture`);
    } catch (error) {
      reasons.push(`${name}: ${error.message}`);
    }
  }
  throw new Error(`the network cannot run here (${reasons.join("; ")})`);
}

async function fetched(source) {
  if (source instanceof ArrayBuffer || ArrayBuffer.isView(source)) return source;
  const url = new URL(source, import.meta.url);
  if (url.protocol === "file:" && globalThis.process?.versions?.node) {
    const files = "node:fs/promises"; // a name in a variable: bundlers leave it alone
    return (await import(/* @vite-ignore */ /* webpackIgnore: true */ files)).readFile(url);
  }
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url.pathname.split("/").pop()}: the server says ${response.status}`);
  return response.arrayBuffer();
}

export class Classifier {
  #wasm;
  #places;
  #room = 0; // bytes for a picture, at the end of the memory
  #known;

  constructor(wasm, level) {
    this.#wasm = wasm;
    wasm._initialize?.();
    const about = JSON.parse(this.#text(wasm.describe()));
    const [channels, height, width] = about.image;
    this.name = about.name;
    this.classes = about.classes;
    this.size = { width, height, channels };
    this.preprocessing = about.preprocessing;
    this.level = level;
    this.#known = about.known;
    const pixels = channels * height * width;
    const image = this.#grown(pixels + 16 + 8 * about.classes.length);
    this.#places = { image, answers: image + Math.ceil(pixels / 16) * 16, picture: 0 };
  }

  #text(start) {
    const memory = new Uint8Array(this.#wasm.memory.buffer, start);
    return new TextDecoder().decode(memory.slice(0, memory.indexOf(0)));
  }

  #grown(bytes) {
    return this.#wasm.memory.grow(Math.ceil(bytes / PAGE)) * PAGE;
  }

  #space(bytes) {
    if (bytes > this.#room) {
      const more = Math.ceil((bytes - this.#room) / PAGE);
      let place;
      try {
        place = this.#wasm.memory.grow(more) * PAGE;
      } catch {
        throw new Error("needs more memory than there is; make the picture smaller");
      }
      this.#places.picture = this.#room ? this.#places.picture : place;
      this.#room += more * PAGE;
    }
    return this.#places.picture;
  }

  /** Whether the picture that was drawn when this was written gets the answer it got then. */
  answersAsKnown() {
    const { width, height, channels } = this.size;
    const image = new Uint8Array(width * height * channels);
    for (let i = 0, x = 1; i < image.length; i++) {
      x = (Math.imul(x, 1103515245) + 12345) >>> 0;
      image[i] = x >>> 16;
    }
    const answers = this.run(image);
    return this.#known.every((p, i) => Math.abs(p - answers[i]) < 1e-3) && answers.every(Number.isFinite);
  }

  /** Probabilities of the classes for the network's own pixels, rows of interleaved channels. */
  run(image) {
    const { width, height, channels } = this.size;
    if (image.length !== width * height * channels)
      throw new Error(`the network takes ${height}×${width}×${channels} values, not ${image.length}`);
    new Uint8Array(this.#wasm.memory.buffer).set(image, this.#places.image);
    this.#wasm.run(this.#places.image, this.#places.answers);
    return new Float32Array(this.#wasm.memory.buffer, this.#places.answers, this.classes.length).slice();
  }

  /** The network's pixels of a decoded picture {data, width, height, layout}. */
  scaled({ data, width, height, layout = data.length / (width * height) }) {
    if (!(width > 0 && height > 0) || ![1, 3, 4, -3, -4].includes(layout) || data.length !== width * height * Math.abs(layout))
      throw new Error(`${data.length} values are no picture of ${width}×${height}`);
    const place = this.#space(data.length);
    new Uint8Array(this.#wasm.memory.buffer).set(data, place);
    return this.#shrunk(place, width, height, layout);
  }

  #shrunk(place, width, height, layout) {
    const { size } = this;
    if (!this.#wasm.preprocess(layout, place, width, height, this.#places.image))
      throw new Error(`a picture of ${width}×${height} cannot be scaled to ${size.width}×${size.height}`);
    return new Uint8Array(this.#wasm.memory.buffer, this.#places.image, size.width * size.height * size.channels).slice();
  }

  /** The network's pixels of a file, canvas, video, image or decoded picture: those that `leancnn predict` sees. */
  async pixels(picture) {
    if (isDecoded(picture)) return this.scaled(picture);
    if (typeof picture === "object" && "getContext" in picture) return this.#drawn(picture, picture.width, picture.height, 4);
    if (typeof HTMLVideoElement !== "undefined" && picture instanceof HTMLVideoElement)
      return this.#drawn(picture, picture.videoWidth, picture.videoHeight, 4);
    if (typeof ImageBitmap !== "undefined" && picture instanceof ImageBitmap)
      return this.#drawn(picture, picture.width, picture.height, 4);
    if (typeof HTMLImageElement !== "undefined" && picture instanceof HTMLImageElement)
      return this.pixels(await (await fetch(picture.currentSrc || picture.src)).blob());
    const bytes = picture instanceof ArrayBuffer ? new Uint8Array(picture)
      : ArrayBuffer.isView(picture) ? new Uint8Array(picture.buffer, picture.byteOffset, picture.byteLength)
      : typeof picture?.arrayBuffer === "function" ? new Uint8Array(await picture.arrayBuffer()) : null;
    if (!bytes) throw new TypeError("a picture is a file, its bytes, a canvas, an image, a video, or {data, width, height}");
    if (!bytes.length) throw new Error("empty file (0 bytes)");
    if (isPng(bytes)) return this.scaled(await decodePng(bytes));
    if (isJpeg(bytes)) checkJpeg(bytes);
    if (typeof createImageBitmap === "undefined")
      throw new Error("only PNG and decoded pixels can be read here; decode the picture first");
    let bitmap;
    try {
      bitmap = await createImageBitmap(new Blob([bytes]), { colorSpaceConversion: "none" });
    } catch {
      throw new Error(isJpeg(bytes) ? "damaged or cut short" : "no image that this browser reads");
    }
    try {
      return this.#drawn(bitmap, bitmap.width, bitmap.height, 4);
    } finally {
      bitmap.close();
    }
  }

  #drawn(source, width, height, layout) {
    checkSize(width, height);
    const place = this.#space(4 * width * height);
    const rows = Math.max(1, Math.min(height, Math.floor(BAND / width)));
    const canvas = canvasOf(width, rows);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    for (let y = 0; y < height; y += rows) {
      const high = Math.min(rows, height - y);
      context.clearRect(0, 0, width, rows);
      context.drawImage(source, 0, y, width, high, 0, 0, width, high);
      const band = context.getImageData(0, 0, width, high).data;
      new Uint8Array(this.#wasm.memory.buffer).set(band, place + 4 * width * y);
    }
    return this.#shrunk(place, width, height, layout);
  }

  /** The likeliest classes of a picture, best first, and how long the network took. */
  async classify(picture, { top = 5 } = {}) {
    const begin = performance.now();
    const image = await this.pixels(picture);
    const middle = performance.now();
    const answers = this.run(image);
    const end = performance.now();
    const order = [...answers.keys()].sort((a, b) => answers[b] - answers[a] || a - b);
    const best = order.slice(0, Math.max(1, top)).map((i) => ({ label: this.classes[i], probability: answers[i] }));
    return { ...best[0], top: best, probabilities: answers, milliseconds: end - middle, preparation: middle - begin };
  }
}

let sharedCanvas;
function canvasOf(width, height) {
  if (sharedCanvas?.width === width && sharedCanvas.height === height) return sharedCanvas;
  if (typeof OffscreenCanvas !== "undefined") return (sharedCanvas = new OffscreenCanvas(width, height));
  sharedCanvas = document.createElement("canvas");
  Object.assign(sharedCanvas, { width, height });
  return sharedCanvas;
}

function isDecoded(picture) {
  return typeof picture === "object" && picture !== null && ArrayBuffer.isView(picture.data) && "width" in picture;
}

function checkSize(width, height) {
  if (width * height > MOST_PIXELS)
    throw new Error(`${width}×${height}, more than ${MOST_PIXELS} pixels; make it smaller`);
}

const isJpeg = (bytes) => bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff;
const isPng = (bytes) => [137, 80, 78, 71, 13, 10, 26, 10].every((value, i) => bytes[i] === value);

/** Refuse a JPEG by its header when it is too large, and one whose end is missing. */
function checkJpeg(bytes) {
  let at = 2;
  while (at + 9 < bytes.length && bytes[at] === 0xff) {
    const marker = bytes[at + 1];
    if (marker === 0xff) { at += 1; continue; }
    const length = (bytes[at + 2] << 8) | bytes[at + 3];
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker))
      checkSize((bytes[at + 7] << 8) | bytes[at + 8], (bytes[at + 5] << 8) | bytes[at + 6]);
    if (marker === 0xda) break;
    at += 2 + length;
  }
  let end = bytes.length - 1;
  while (end > at && !(bytes[end - 1] === 0xff && (bytes[end] === 0xd9 || bytes[end] === 0xda))) end--;
  if (end <= at || bytes[end] !== 0xd9) throw new Error("damaged or cut short (its end is missing)");
}

// PNG is decoded here: a canvas multiplies colours with alpha and loses their last bits, browsers treat
// 16 bits and colour profiles each in its way, and node has no decoder.

let crcTable;
function crc(bytes, start, end) {
  crcTable ??= Uint32Array.from({ length: 256 }, (_, n) => {
    for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
    return n;
  });
  let value = 0xffffffff;
  for (let i = start; i < end; i++) value = crcTable[(value ^ bytes[i]) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

function* chunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const name = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const end = at + 8 + length;
    if (end + 4 > bytes.length) throw new Error(`damaged or cut short (in ${name.replace(/[^A-Za-z]/g, "?")})`);
    if (["IHDR", "PLTE", "IDAT", "tRNS"].includes(name) && view.getUint32(end) !== crc(bytes, at + 4, end))
      throw new Error(`damaged or cut short (checksum of ${name})`);
    yield [name, bytes.subarray(at + 8, end)];
    if (name === "IEND") return;
    at = end + 4;
  }
  throw new Error("damaged or cut short (its end is missing)");
}

/** A PNG as {data, width, height, layout}: 8-bit grey, RGB or RGBA, upright, not yet on a background. */
export async function decodePng(bytes) {
  let header, palette, key, turn = 1;
  const parts = [];
  for (const [name, data] of chunks(bytes)) {
    if (name === "IHDR") header = readHeader(data);
    else if (name === "PLTE") palette = data;
    else if (name === "tRNS") key = data;
    else if (name === "IDAT") parts.push(data);
    else if (name === "eXIf") turn = orientation(data);
  }
  if (!header || !parts.length) throw new Error("damaged or cut short (no pixels)");
  const { width, height, depth, colour, interlaced } = header;
  if (colour === 3 && !palette) throw new Error("damaged or cut short (no palette)");
  if (key && depth === 16 && colour === 2)
    throw new Error("one transparent colour among 16-bit ones; convert to 8 bits");
  const samples = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }[colour];
  const bits = samples * depth;
  const layout = colour === 4 || colour === 6 || key ? 4 : colour === 0 ? 1 : 3;
  const passes = interlaced ? ADAM7 : [[0, 0, 1, 1]];
  const sizes = passes.map(([x, y, dx, dy]) => [Math.ceil((width - x) / dx), Math.ceil((height - y) / dy)]);
  const lines = sizes.map(([w]) => Math.ceil((w * bits) / 8));
  const total = sizes.reduce((sum, [w, h], i) => sum + (w > 0 && h > 0 ? h * (lines[i] + 1) : 0), 0);
  const raw = await inflated(parts, total);
  const data = new Uint8Array(width * height * layout);
  const put = writerOf({ depth, colour, palette, key, layout, data });
  let at = 0;
  passes.forEach(([x0, y0, dx, dy], i) => {
    const [w, h] = sizes[i];
    if (w < 1 || h < 1) return;
    unfilter(raw, at, lines[i], h, Math.max(1, bits >> 3));
    for (let y = 0; y < h; y++, at += lines[i] + 1)
      put(raw, at + 1, w, ((y0 + y * dy) * width + x0) * layout, dx * layout);
  });
  return upright({ data, width, height, layout }, turn);
}

const ADAM7 = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];
const DEPTHS = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] };

function readHeader(data) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  if (data.length !== 13) throw new Error("damaged or cut short (its header)");
  const [width, height] = [view.getUint32(0), view.getUint32(4)];
  const [depth, colour, , , interlaced] = data.subarray(8);
  if (!width || !height || !DEPTHS[colour]?.includes(depth) || interlaced > 1)
    throw new Error("no image, or its header is damaged");
  checkSize(width, height);
  return { width, height, depth, colour, interlaced };
}

async function inflated(parts, total) {
  const out = new Uint8Array(total);
  const reader = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  let have = 0;
  try {
    while (have < total) {
      const { done, value } = await reader.read();
      if (done) break;
      out.set(value.subarray(0, total - have), have);
      have += Math.min(value.length, total - have);
    }
  } catch {
    // the stream is damaged; what came before counts below
  }
  reader.cancel().catch(() => {});
  if (have < total) throw new Error("damaged or cut short");
  return out;
}

function unfilter(raw, start, line, rows, step) {
  for (let y = 0, at = start; y < rows; y++, at += line + 1) {
    const filter = raw[at], first = at + 1, above = first - line - 1;
    if (filter > 4) throw new Error("damaged or cut short");
    for (let i = 0; i < line && filter; i++) {
      const a = i < step ? 0 : raw[first + i - step];
      const b = y ? raw[above + i] : 0;
      if (filter === 1) raw[first + i] += a;
      else if (filter === 2) raw[first + i] += b;
      else if (filter === 3) raw[first + i] += (a + b) >> 1;
      else {
        const c = y && i >= step ? raw[above + i - step] : 0;
        const pa = Math.abs(b - c), pb = Math.abs(a - c), pc = Math.abs(a + b - 2 * c);
        raw[first + i] += pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
      }
    }
  }
}

/** A function that writes one row of samples as pixels of the layout, `step` apart. */
function writerOf({ depth, colour, palette, key, layout, data }) {
  const most = (1 << depth) - 1;
  const keys = key && colour !== 3 ? Array.from({ length: key.length >> 1 }, (_, i) => (key[2 * i] << 8) | key[2 * i + 1]) : null;
  const sample = depth === 16 ? (raw, at, i) => (raw[at + 2 * i] << 8) | raw[at + 2 * i + 1]
    : depth === 8 ? (raw, at, i) => raw[at + i]
    : (raw, at, i) => (raw[at + ((i * depth) >> 3)] >> (8 - depth - ((i * depth) & 7))) & most;
  // 16-bit grey is rounded, other 16-bit samples lose their low byte: as in training
  const grey = depth === 16 ? (v) => Math.floor((v * 255 + 32767) / 65535) : (v) => (v * 255) / most;
  const high = depth === 16 ? (v) => v >> 8 : (v) => v;
  return (raw, at, count, to, step) => {
    for (let i = 0; i < count; i++, to += step) {
      if (colour === 0) {
        const v = sample(raw, at, i);
        data[to] = grey(v);
        if (layout === 4) {
          data[to + 1] = data[to + 2] = data[to];
          data[to + 3] = v === keys[0] ? 0 : 255;
        }
      } else if (colour === 3) {
        const v = sample(raw, at, i);
        for (let c = 0; c < 3; c++) data[to + c] = palette[3 * v + c] ?? 0;
        if (layout === 4) data[to + 3] = key[v] ?? 255;
      } else if (colour === 4) {
        data[to] = data[to + 1] = data[to + 2] = high(sample(raw, at, 2 * i));
        data[to + 3] = high(sample(raw, at, 2 * i + 1));
      } else {
        const each = colour === 6 ? 4 : 3;
        for (let c = 0; c < each; c++) data[to + c] = high(sample(raw, at, each * i + c));
        if (keys) data[to + 3] = keys.every((value, c) => data[to + c] === value) ? 0 : 255;
      }
    }
  };
}

/** The orientation that an EXIF block states, 1 when it states none. */
function orientation(data) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  try {
    const little = view.getUint16(0) === 0x4949;
    const first = view.getUint32(4, little);
    for (let i = 0; i < view.getUint16(first, little); i++) {
      const at = first + 2 + 12 * i;
      if (view.getUint16(at, little) === 0x0112) return view.getUint16(at + 8, little);
    }
  } catch {
    // a damaged EXIF block says nothing about the pixels
  }
  return 1;
}

/** A picture turned as its EXIF orientation (1 to 8) says. */
export function upright({ data, width, height, layout }, turn) {
  if (!(turn >= 2 && turn <= 8)) return { data, width, height, layout };
  const lies = turn > 4;
  const [wide, high] = lies ? [height, width] : [width, height];
  const from = {
    2: (x, y) => [width - 1 - x, y], 3: (x, y) => [width - 1 - x, height - 1 - y], 4: (x, y) => [x, height - 1 - y],
    5: (x, y) => [y, x], 6: (x, y) => [y, height - 1 - x], 7: (x, y) => [width - 1 - y, height - 1 - x], 8: (x, y) => [width - 1 - y, x],
  }[turn];
  const out = new Uint8Array(data.length);
  for (let y = 0, to = 0; y < high; y++)
    for (let x = 0; x < wide; x++) {
      const [u, v] = from(x, y);
      for (let c = 0; c < layout; c++) out[to++] = data[(v * width + u) * layout + c];
    }
  return { data: out, width: wide, height: high, layout };
}
