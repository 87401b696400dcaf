// Which images are shown, and in which order: from the state in the address and the columns. No document here, only
// numbers: 100,000 rows take milliseconds.

/** Columns that a range can be asked of: how they are called, and from where they come. */
export const RANGES = {
  confidence: { title: 'Confidence', from: 'predictions', span: [0, 1] },
  loss: { title: 'Loss', from: 'predictions' },
  margin: { title: 'Margin', from: 'predictions' },
  iou: { title: 'IoU of the box', from: 'predictions', span: [0, 1] },
  area: { title: 'Box, part of the image', from: 'columns', span: [0, 1] },
};

/** Orders: title, and the column by which. */
export const SORTS = {
  image: ['File order', null],
  loss: ['Loss', 'loss'],
  confidence: ['Confidence', 'confidence'],
  margin: ['Margin', 'margin'],
  entropy: ['Entropy', 'entropy'],
  label_prob: ['Probability of the label', 'label_prob'],
  iou: ['IoU of the box', 'iou'],
  area: ['Size of the box', 'area'],
  label: ['Class', 'label'],
  predicted: ['Predicted class', 'predicted'],
};

/** `text` as two numbers, either of which may be missing: `0.5-`, `-2`, `1-3`; null if it is none. */
export function parseRange(text) {
  const parts = /^(-?[\d.]+)?~(-?[\d.]+)?$/.exec(text ?? '');
  if (!parts) return null;
  const [low, high] = [parts[1], parts[2]].map((part) => (part === undefined ? undefined : Number(part)));
  return Number.isNaN(low) || Number.isNaN(high) ? null : [low ?? -Infinity, high ?? Infinity];
}

export function formatRange(low, high) {
  const text = (value) => (Number.isFinite(value) ? String(value) : '');
  return Number.isFinite(low) || Number.isFinite(high) ? `${text(low)}~${text(high)}` : null;
}

/** `text` as a list of numbers of classes. */
export const parseList = (text) => (text ? text.split(',').map(Number).filter(Number.isInteger) : []);

/** The part of the image that each box covers, 0 to 1; NaN without a box. */
export function areas(columns, [, height, width]) {
  const area = new Float32Array(columns.rows);
  const { box } = columns;
  for (let row = 0, at = 0; row < columns.rows; row++, at += 4) {
    area[row] = box[at] < 0 ? NaN : ((box[at + 2] + 1 - box[at]) * (box[at + 3] + 1 - box[at + 1])) / (width * height);
  }
  return area;
}

/** The test of one word of a search: it is in the id or the words of the class, or in the name of the image once those are there. */
function finder(word, { columns, names, set }) {
  const classes = set.classes.map(({ id, name }) => `${id} ${name}`.toLowerCase().includes(word));
  return (row) => classes[columns.label[row]] || Boolean(names?.lower(row).includes(word));
}

/**
 * The images that `state` asks for, in its order, as Uint32Array. `data`: `set`, `columns` with `area`, and where they
 * are there `names` (for a search), `predictions`, `grey`, `chosen` (a Set), `other` (predictions to compare with), `inLasso`.
 */
export function select(state, data) {
  const { columns, predictions, grey, chosen, inLasso } = data;
  const tests = [];
  const labels = parseList(state.label);
  if (labels.length > 0) {
    const wanted = new Set(labels);
    tests.push((row) => wanted.has(columns.label[row]));
  }
  const predicted = parseList(state.predicted);
  if (predicted.length > 0 && predictions) {
    const wanted = new Set(predicted);
    tests.push((row) => wanted.has(predictions.predicted[row]));
  }
  if (predictions && (state.right === 'yes' || state.right === 'no')) {
    const right = state.right === 'yes';
    tests.push((row) => (predictions.predicted[row] === columns.label[row]) === right);
  }
  if (predictions && data.other && /^[rw][rw]$/.test(state.both ?? '')) {
    const [a, b] = [state.both[0] === 'r', state.both[1] === 'r'];
    const is = (of, row) => of.predicted[row] === columns.label[row];
    tests.push((row) => is(predictions, row) === a && is(data.other, row) === b);
  }
  for (const [key, { from }] of Object.entries(RANGES)) {
    const range = parseRange(state[key]);
    const column = data[from]?.[key];
    if (range && column) {
      const [low, high] = range;
      tests.push((row) => column[row] >= low && column[row] <= high);
    }
  }
  if (grey && (state.grey === 'yes' || state.grey === 'no')) {
    const wanted = state.grey === 'yes' ? 1 : 0;
    tests.push((row) => grey[row] === wanted);
  }
  if (state.chosen === 'yes' && chosen) tests.push((row) => chosen.has(row));
  if (inLasso) tests.push((row) => inLasso[row] === 1);
  for (const word of (state.q ?? '').toLowerCase().split(/\s+/).filter(Boolean)) tests.push(finder(word, data));

  const found = new Uint32Array(columns.rows);
  let count = 0;
  rows: for (let row = 0; row < columns.rows; row++) {
    for (const test of tests) if (!test(row)) continue rows;
    found[count++] = row;
  }
  const images = found.subarray(0, count);
  const by = SORTS[state.sort]?.[1];
  const column = by && (predictions?.[by] ?? columns[by]);
  return column ? sorted(images, column, state.down === 'yes') : state.down === 'yes' ? images.reverse() : images;
}

/** `images` by their values in `column`, NaN last, those of equal value in their order. */
export function sorted(images, column, down) {
  // One sort of numbers that hold both the value, as an integer of the same order, and the place.
  const float = new Float32Array(1);
  const word = new Uint32Array(float.buffer);
  const keys = new Float64Array(images.length);
  for (let at = 0; at < images.length; at++) {
    float[0] = column[images[at]];
    let order = word[0] & 0x80000000 ? ~word[0] >>> 0 : (word[0] | 0x80000000) >>> 0;
    if (down) order = 0xffffffff - order;
    if (Number.isNaN(float[0])) order = 0xffffffff;
    keys[at] = order * 2 ** 20 + at;
  }
  if (images.length > 2 ** 20) throw new Error('more than 1,048,576 images cannot be sorted here: filter them first');
  keys.sort();
  const result = new Uint32Array(images.length);
  for (let at = 0; at < keys.length; at++) result[at] = images[keys[at] % 2 ** 20];
  return result;
}

/** Counts of the finite values of `column` in `bins` bins, and the ends of the first and last bin. */
export function histogram(column, span, bins = 32) {
  let [low, high] = span ?? [Infinity, -Infinity];
  if (!span) {
    for (const value of column) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  const counts = new Uint32Array(bins);
  if (!(high > low)) return { low, high: low, counts };
  for (const value of column) {
    if (value >= low && value <= high) counts[Math.min(bins - 1, Math.floor(((value - low) / (high - low)) * bins))]++;
  }
  return { low, high, counts };
}

/** How many of `images` are predicted as they are labelled, and how many have a label. */
export function score(images, columns, predictions) {
  let [right, labelled] = [0, 0];
  for (const image of images) {
    if (columns.label[image] >= 0) labelled++;
    if (columns.label[image] >= 0 && columns.label[image] === predictions.predicted[image]) right++;
  }
  return { right, labelled };
}
