/** Levels of WebAssembly, each in a file of its own. */
export type Level = "relaxed" | "simd" | "plain";

/** Decoded 8-bit pixels, rows without gaps. `layout`: 1 grey, 3 RGB, 4 RGBA, -3 BGR, -4 BGRA; by default by the length. */
export interface Decoded {
  data: Uint8Array | Uint8ClampedArray;
  width: number;
  height: number;
  layout?: 1 | 3 | 4 | -3 | -4;
}

/** A file or its bytes, something that can be drawn, or decoded pixels. */
export type Picture =
  | Blob
  | ArrayBuffer
  | ArrayBufferView
  | HTMLCanvasElement
  | OffscreenCanvas
  | HTMLImageElement
  | HTMLVideoElement
  | ImageBitmap
  | Decoded;

export interface Scored {
  label: string;
  /** 0 to 1: the network's own, which is not a promise. */
  probability: number;
}

export interface Answer extends Scored {
  /** The likeliest classes, best first. */
  top: Scored[];
  /** Of every class, in the order of `classes`. */
  probabilities: Float32Array;
  /** Of the network alone. */
  milliseconds: number;
  /** Of decoding and scaling. */
  preparation: number;
}

export declare class Classifier {
  private constructor();
  readonly name: string;
  readonly classes: string[];
  /** Of the network's input. */
  readonly size: { width: number; height: number; channels: number };
  /** How a picture becomes the input, as `leancnn` stores it with the network. */
  readonly preprocessing: Record<string, unknown>;
  readonly level: Level;
  /** Decode, scale and classify. Rejects with an Error that says why a picture cannot be used. */
  classify(picture: Picture, options?: { top?: number }): Promise<Answer>;
  /** The network's input of a picture: the bytes that `leancnn predict` sees. */
  pixels(picture: Picture): Promise<Uint8Array>;
  /** The same for decoded pixels, at once. */
  scaled(picture: Decoded): Uint8Array;
  /** Probabilities for the network's input, rows of interleaved channels. */
  run(image: Uint8Array): Float32Array;
  answersAsKnown(): boolean;
}

type Source = URL | string | ArrayBuffer | ArrayBufferView;

export interface Options {
  /** Where the .wasm is, for all levels or for each; by default beside this file. */
  wasm?: Source | Partial<Record<Level, Source | (() => Source | Promise<Source>)>>;
  /** Only this level. By default the fastest that answers a known picture rightly. */
  level?: Level;
}

/** Load the network once; then classify as often as you like. */
export declare function load(options?: Options): Promise<Classifier>;

/** The levels that this engine validates, the fastest first. */
export declare function levels(): Level[];

/** Decode a PNG to upright 8-bit pixels, alpha included, without a canvas. */
export declare function decodePng(bytes: Uint8Array): Promise<Required<Decoded>>;

/** Turn a picture as its EXIF orientation (1 to 8) says. */
export declare function upright(picture: Required<Decoded>, turn: number): Required<Decoded>;
