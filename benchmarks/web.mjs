// The web export beside onnxruntime-web, in node or in a page, one thread, in turns.
//
//   node benchmarks/web.mjs SITE MODEL.onnx FOLDER ROUNDS MILLISECONDS [LEVEL]
//
// FOLDER holds node_modules/onnxruntime-web. Prints one JSON value; benchmarks/web.py calls it.

/** The numbers that enter a network, pixel by pixel. */
const normalised = ({ mean, std, image, channels }) =>
  Float32Array.from(image, (byte, i) => (byte / 255 - mean[i % channels]) / std[i % channels]);

/** LiteRT.js as a function: what it answers, from its own kind of input, made beforehand. */
async function compiled({ litert, tflite, width, height, channels, ...rest }) {
  const model = await litert.loadAndCompile(tflite, { accelerator: "wasm" });
  const area = width * height;
  const pixels = normalised({ channels, ...rest });
  const planes = pixels.map((_, i) => pixels[(i % area) * channels + Math.floor(i / area)]);
  const input = new litert.Tensor(planes, [1, channels, height, width]);
  return async () => {
    const [output] = await model.run(input);
    const logits = output.toTypedArray().slice();
    output.delete();
    return logits;
  };
}

/** TensorFlow.js on its WebAssembly backend, the same way. */
async function interpreted({ tf, tfjs, width, height, channels, ...rest }) {
  const model = await tf.loadGraphModel(tfjs);
  const input = tf.tensor(normalised({ channels, ...rest }), [1, height, width, channels]);
  return async () => {
    const output = model.execute(input);
    const logits = output.dataSync();
    output.dispose();
    return logits;
  };
}

const softmax = (logits) => {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (x) => Math.exp(x - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((p) => p / sum);
};

/** Microseconds an image of each engine, the median of each turn, and how far their answers are apart. */
export async function measure(given) {
  const { load, ort, model, litert, tflite, tf, tfjs, rounds, milliseconds, level } = given;
  const network = await load(level ? { level } : {});
  const { width, height, channels } = network.size;
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  const image = Uint8Array.from({ length: width * height * channels }, (_, i) => (i * 31 + (i >> 3) * 17) & 255);
  const feed = { [session.inputNames[0]]: new ort.Tensor("uint8", image, [1, height, width, channels]) };
  const engines = {
    ours: async () => network.run(image),
    theirs: async () => (await session.run(feed))[session.outputNames[0]].data,
  };
  const size = { image, width, height, channels };
  if (litert && tflite) engines.litert = await compiled({ ...given, ...size });
  if (tf && tfjs) engines.tfjs = await interpreted({ ...given, ...size });
  const turn = async (run, until) => {
    const took = [];
    for (const end = performance.now() + until; took.length < 5 || performance.now() < end; ) {
      const begin = performance.now();
      await run();
      took.push(1000 * (performance.now() - begin));
    }
    return took.sort((a, b) => a - b)[took.length >> 1];
  };
  const ours = network.run(image);
  let apart = 0;
  for (const [name, run] of Object.entries(engines))
    if (name !== "ours") softmax(await run()).forEach((p, i) => (apart = Math.max(apart, Math.abs(p - ours[i]))));
  const found = Object.fromEntries(Object.keys(engines).map((name) => [name, []]));
  for (const run of Object.values(engines)) await turn(run, 4 * milliseconds); // compiled and warm
  for (let round = 0; round < rounds; round++)
    for (const [name, run] of Object.entries(engines)) found[name].push(await turn(run, milliseconds));
  return { level: network.level, apart, ...found };
}

if (globalThis.process?.argv?.[1]?.endsWith("web.mjs")) {
  const { pathToFileURL } = await import("node:url");
  const { readFile } = await import("node:fs/promises");
  const [site, onnx, folder, rounds, milliseconds, level] = process.argv.slice(2);
  const { load } = await import(pathToFileURL(`${site}/classify.mjs`));
  const ort = await import(pathToFileURL(`${folder}/node_modules/onnxruntime-web/dist/ort.node.min.mjs`));
  const model = new Uint8Array(await readFile(onnx));
  const answer = await measure({ load, ort: ort.default ?? ort, model, rounds: +rounds, milliseconds: +milliseconds, level });
  process.stdout.write(`${JSON.stringify({ ...answer, node: process.version })}\n`);
  process.exit(0);
}
