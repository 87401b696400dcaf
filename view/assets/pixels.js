// Pictures for a canvas: raw pixels from the server, by blocks of what is shown, kept as bitmaps of many pictures.
import { bytes } from './data.js';

/** Bytes of pixels in a block at most. */
const BLOCK_BYTES = 1 << 20;
/** Bytes of bitmaps that are kept. */
const KEPT_BYTES = 96 << 20;
const LOADERS = 8;

/** Pictures of one split. */
export class Pictures {
  /** `onload` is called when pictures have come, `onerror` with a message when they cannot. */
  constructor(split, shape, onload, onerror) {
    Object.assign(this, { split, onload, onerror });
    [, this.height, this.width] = shape;
    const len = 3 * this.height * this.width;
    this.block = Math.max(1, Math.min(64, 2 ** Math.floor(Math.log2(BLOCK_BYTES / len))));
    this.columns = Math.ceil(Math.sqrt(this.block));
    this.most = Math.max(8, Math.floor(KEPT_BYTES / (4 * this.height * this.width * this.block)));
    this.places = new Map(); // of an image: its bitmap and its place there
    this.bitmaps = []; // the one used last at the end
    this.wanted = [];
    this.loading = new Set();
    this.failed = new Set();
  }

  /** Begins a new drawing: blocks that were wanted before, and are not on their way, are forgotten. */
  begin() {
    this.wanted = [];
    this.now = performance.now();
  }

  /** The bitmap of the image at `position` of `order`, with its place, or undefined and it is loaded. */
  get(order, position) {
    const place = this.places.get(order[position]);
    if (place) {
      place.bitmap.used = this.now;
      return place;
    }
    const block = Math.floor(position / this.block);
    if (this.wanted.at(-1)?.block !== block || this.wanted.at(-1).order !== order) {
      this.wanted.push({ order, block });
    }
    return undefined;
  }

  /** Ends a drawing: begins to load what it lacked. */
  end() {
    while (this.loading.size < LOADERS && this.wanted.length > 0) {
      const { order, block } = this.wanted.shift();
      const first = block * this.block;
      const slice = order.subarray(first, first + this.block);
      const images = Array.from(slice).filter((image) => !this.places.has(image));
      const key = images.join();
      if (images.length === 0 || this.loading.has(key) || this.failed.has(key)) continue;
      this.loading.add(key);
      this.load(images)
        .catch((error) => {
          this.failed.add(key);
          this.onerror(error.message);
        })
        .finally(() => {
          this.loading.delete(key);
          this.onload();
        });
    }
  }

  async load(images) {
    const bitmap = await createImageBitmap(this.decode(await bytes(this.path(images)), images.length));
    bitmap.images = images;
    bitmap.used = performance.now();
    this.bitmaps.push(bitmap);
    images.forEach((image, at) => {
      const [x, y] = [at % this.columns, Math.floor(at / this.columns)];
      this.places.set(image, { bitmap, x: x * this.width, y: y * this.height });
    });
    if (this.bitmaps.length > this.most) this.evict();
  }

  path(images) {
    const [first, count] = [images[0], images.length];
    const inOrder = images.every((image, at) => image === first + at);
    const query = inOrder ? `first=${first}&count=${count}` : `ids=${images}`;
    return `/api/split/${this.split}/pixels?${query}`;
  }

  evict() {
    this.bitmaps.sort((a, b) => a.used - b.used);
    for (const bitmap of this.bitmaps.splice(0, this.bitmaps.length >> 2)) {
      for (const image of bitmap.images) {
        if (this.places.get(image)?.bitmap === bitmap) this.places.delete(image);
      }
      bitmap.close();
    }
  }

  /** Planes of `count` pictures as one picture of all of them, side by side. */
  decode(buffer, count) {
    const planes = new Uint8Array(buffer);
    const [width, height, columns] = [this.width, this.height, Math.min(this.columns, count)];
    const stride = columns * width;
    const data = new ImageData(stride, Math.ceil(count / columns) * height);
    const out = new Uint32Array(data.data.buffer);
    const area = width * height;
    for (let at = 0; at < count; at++) {
      let from = at * 3 * area;
      let to = Math.floor(at / columns) * height * stride + (at % columns) * width;
      for (let y = 0; y < height; y++, to += stride) {
        for (let x = 0; x < width; x++, from++) {
          out[to + x] =
            0xff000000 | (planes[from + 2 * area] << 16) | (planes[from + area] << 8) | planes[from];
        }
      }
    }
    return data;
  }
}
