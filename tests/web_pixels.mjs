// node web_pixels.mjs SITE FILE …: what the page's module makes of files, as JSON by name.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [site, ...paths] = process.argv.slice(2);
const { load, levels } = await import(pathToFileURL(`${site}/classify.mjs`));
const classifier = await load();
const found = {};
for (const path of paths) {
  try {
    const pixels = await classifier.pixels(new Blob([readFileSync(path)]));
    const { probabilities, label } = await classifier.classify(readFileSync(path));
    found[path] = { pixels: Buffer.from(pixels).toString("base64"), probabilities: [...probabilities], label };
  } catch (error) {
    found[path] = { error: error.message };
  }
}
const wrong = { level: "plain", wasm: { plain: readFileSync(`${site}/plain.wasm`).fill(0, 8, 60) } };
const refused = await load(wrong).then(() => "", (error) => error.message);
process.stdout.write(JSON.stringify({ levels: levels(), level: classifier.level, classes: classifier.classes, refused, found }));
