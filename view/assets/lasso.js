// Where pictures lie on the map, and which of them lie inside of a line.
import { awaited, once, table } from './data.js';

/** How pictures are laid out: by their neighbours, or along the two main directions of their features. */
export const layoutIn = (state) => (state.layout === 'pca' ? 'pca' : 'umap');

/**
 * Places on a map, 0 to 1: `xy`, and for PCA the part of the variance that they explain. The server makes the other one
 * meanwhile, and an event `arranging` tells how much of it is done.
 */
export function layoutOf(run, split, layout) {
  return once(`layout ${run} ${split} ${layout}`, async () => {
    const tell = (done) => dispatchEvent(new CustomEvent('arranging', { detail: done }));
    const columns = layout === 'pca' ? await table(`/api/run/${run}/map/${split}`) : await awaited(`/api/run/${run}/umap/${split}`, tell);
    const xy = new Float32Array(2 * columns.rows);
    for (const side of [0, 1]) {
      let [low, high] = [Infinity, -Infinity];
      for (let row = 0; row < columns.rows; row++) {
        low = Math.min(low, columns.xy[2 * row + side]);
        high = Math.max(high, columns.xy[2 * row + side]);
      }
      const length = high - low || 1;
      for (let row = 0; row < columns.rows; row++) {
        xy[2 * row + side] = 0.03 + (0.94 * (columns.xy[2 * row + side] - low)) / length;
      }
    }
    return { xy, rows: columns.rows, explained: columns.explained?.[0] };
  });
}

/** The corners in the address, or undefined. */
export function parseLasso(text) {
  const corners = (text ?? '').split(',').map((corner) => corner.split('_').map(Number));
  const valid = corners.length > 2 && corners.every((corner) => corner.length === 2 && corner.every(Number.isFinite));
  return valid ? corners : undefined;
}

/** 1 for each picture inside of the corners, else 0. */
export function within({ xy, rows }, corners) {
  const inside = new Uint8Array(rows);
  for (let row = 0; row < rows; row++) {
    const [x, y] = [xy[2 * row], xy[2 * row + 1]];
    let odd = 0;
    for (let at = 0; at < corners.length; at++) {
      const [[x0, y0], [x1, y1]] = [corners[at], corners[(at + 1) % corners.length]];
      if (y0 > y !== y1 > y && x < x0 + ((y - y0) * (x1 - x0)) / (y1 - y0)) odd ^= 1;
    }
    inside[row] = odd;
  }
  return inside;
}
