// The page of pictures: filters, the grid, and what can be done with what is shown.
import { html, useEffect, useMemo, useState } from './vendor/preact.js';
import { short, words } from './data.js';
import { RANGES, SORTS, formatRange, histogram, parseList, parseRange, score, select } from './filters.js';
import { Grid } from './grid.js';
import { namesOf, useGrey, useSplit } from './loaded.js';
import { Picture } from './picture.js';
import { go } from './state.js';
import { Field, Histogram, Message, count, percent } from './parts.js';

const SIZES = [32, 48, 64, 96, 128, 192, 256];

/** The images that were chosen by hand, by split; they last as long as the page. */
const chosenOf = new Map();
/** The one chosen last, from which a row is chosen. */
let last;

export function chosenIn(split) {
  if (!chosenOf.has(split)) chosenOf.set(split, new Set());
  return chosenOf.get(split);
}

export function GridPage({ set, state, split, run }) {
  const data = useSplit(set, split, run, state);
  const grey = useGrey(split, Boolean(state.grey));
  const [trouble, setTrouble] = useState();
  const [revision, setRevision] = useState(0);
  const [open, setOpen] = useState(matchMedia('(min-width: 900px)').matches);
  const chosen = chosenIn(split);
  const { columns, predictions } = data;
  const filterState = JSON.stringify({ ...state, image: null, size: null, boxes: null, zoom: null });
  const order = useMemo(
    () => columns && select(state, { ...data, grey: grey.value, chosen }),
    [columns, data.names, predictions, data.other, data.inLasso, grey.value, filterState, state.chosen && revision],
  );
  useEffect(() => setTrouble(undefined), [split]);
  if (data.error) return html`<${Message} error=${data.error} />`;
  if (!columns) return html`<${Message} text="Loading …" />`;

  const size = SIZES.includes(Number(state.size)) ? Number(state.size) : 64;
  const boxes = state.boxes === 'yes';
  const look = (image) => {
    const label = columns.label[image];
    const guess = predictions?.predicted[image];
    const right = guess === label;
    const marked = predictions && label >= 0;
    const caption = marked && !right ? `${short(set, label)} → ${short(set, guess)}` : short(set, label);
    return {
      caption: !marked && predictions ? short(set, guess) : caption,
      label: `image ${image}, ${words(set, label)}${
        predictions ? `, predicted ${words(set, guess)}${marked ? (right ? ', right' : ', wrong') : ''}` : ''
      }${chosen.has(image) ? ', chosen' : ''}`,
      mark: marked ? (right ? 'right' : 'wrong') : undefined,
      boxes: boxes ? boxesOf(data, image) : undefined,
      chosen: chosen.has(image),
    };
  };
  const choose = (image, through) => {
    if (through && last !== undefined) {
      const [from, to] = [order.indexOf(last), order.indexOf(image)].sort((a, b) => a - b);
      if (from >= 0) for (const between of order.subarray(from, to + 1)) chosen.add(between);
    } else if (!chosen.delete(image)) {
      chosen.add(image);
    }
    last = image;
    setRevision((revision) => revision + 1);
  };
  const image = state.image === undefined ? undefined : Number(state.image);
  return html`<main class=${open ? 'with-filters' : ''}>
    ${open && html`<${Filters} set=${set} state=${state} data=${data} grey=${grey} order=${order} chosen=${chosen} />`}
    <section class="pictures" aria-label="Pictures">
      <h1 class="sr">Pictures of ${split}</h1>
      <${Toolbar} ...${{ set, state, data, order, chosen, size, open, setOpen, split }} onerror=${setTrouble} />
      ${(trouble ?? data.note) && html`<p class="trouble" role="alert">${trouble ?? data.note}</p>`}
      ${order.length === 0 && html`<p class="empty">No picture is like that. <a href=${`#/grid?split=${split}`}>Show all</a></p>`}
      <${Grid} split=${split} shape=${set.shape} order=${order} size=${size} look=${look} onerror=${setTrouble}
        at=${image} onopen=${(image) => go({ image })} onchoose=${choose} version=${revision} />
    </section>
    ${image >= 0 &&
    image < columns.rows &&
    html`<${Picture} set=${set} state=${state} split=${split} run=${run} data=${data} order=${order} image=${image}
      chosen=${chosen} onchoose=${choose} />`}
  </main>`;
}

/** The boxes of an image: `truth`, and `guess` if one is predicted. */
export function boxesOf({ columns, predictions }, image) {
  const boxes = {};
  const truth = columns.box.subarray(4 * image, 4 * image + 4);
  if (truth[0] >= 0) boxes.truth = truth;
  if (predictions?.predicted_box) boxes.guess = predictions.predicted_box.subarray(4 * image, 4 * image + 4);
  return boxes;
}

function Toolbar({ set, state, data, order, chosen, size, open, setOpen, split, onerror }) {
  const { columns, predictions } = data;
  const sorts = Object.entries(SORTS).filter(([, [, key]]) => !key || predictions?.[key] || columns[key]);
  const scored = useMemo(() => predictions && score(order, columns, predictions), [order, predictions]);
  const all = order.length === columns.rows;
  const at = SIZES.indexOf(size);
  return html`<div class="toolbar" role="toolbar" aria-label="View">
    <button aria-expanded=${open} aria-controls="filters" onClick=${() => setOpen(!open)}>Filters</button>
    <input type="search" placeholder="Word, wnid or file name" aria-label="Search" value=${state.q ?? ''}
      onInput=${(event) => go({ q: event.target.value, image: null }, true)} />
    <p class="count" role="status">
      <b>${count(order.length)}</b>${all ? '' : ` of ${count(columns.rows)}`}
      ${scored?.labelled > 0 && html` · <b>${percent(scored.right / scored.labelled)}</b> right`}
    </p>
    <span class="spring"></span>
    <label class="choice"><span>Sort</span>
      <select value=${state.sort ?? 'image'} onChange=${(event) => go({ sort: event.target.value === 'image' ? null : event.target.value })}>
        ${sorts.map(([key, [title]]) => html`<option value=${key}>${title}</option>`)}
      </select></label>
    <button class="icon" aria-pressed=${state.down === 'yes'} aria-label="Largest first" title="Largest first"
      onClick=${() => go({ down: state.down === 'yes' ? null : 'yes' })}>${state.down === 'yes' ? '↓' : '↑'}</button>
    <button aria-pressed=${state.boxes === 'yes'} onClick=${() => go({ boxes: state.boxes === 'yes' ? null : 'yes' }, true)}>Boxes</button>
    <span class="joined" role="group" aria-label="Size of pictures">
      <button class="icon" aria-label="Smaller pictures" disabled=${at <= 0} onClick=${() => go({ size: SIZES[at - 1] }, true)}>−</button>
      <button class="icon" aria-label="Larger pictures" disabled=${at >= SIZES.length - 1} onClick=${() => go({ size: SIZES[at + 1] }, true)}>+</button>
    </span>
    <${Export} ...${{ set, data, split, order, chosen, onerror }} />
  </div>`;
}

/** Saves the names of what is shown, or of what is chosen. */
function Export({ set, data, split, order, chosen, onerror }) {
  const images = chosen.size > 0 ? order.filter((image) => chosen.has(image)) : order;
  const save = async (kind) => {
    const { columns, predictions } = data;
    const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const id = (label) => set.classes[label]?.id ?? '';
    const { name } = await namesOf(split);
    const names = Array.from(images, name);
    const rows = {
      txt: () => names,
      csv: () => [
        `image,name,class${predictions ? ',predicted,confidence,loss' : ''}`,
        ...Array.from(images, (image, at) =>
          [
            image,
            quoted(names[at]),
            quoted(id(columns.label[image])),
            ...(predictions
              ? [quoted(id(predictions.predicted[image])), predictions.confidence[image], predictions.loss[image]]
              : []),
          ].join(),
        ),
      ],
    };
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([rows[kind]().map((row) => `${row}\n`).join('')], { type: 'text/plain' }));
    link.download = `${split}-${images.length}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  return html`<label class="choice"><span class="sr">Export</span>
    <select class="export" value="" title="Names of the pictures shown, or of those chosen" onChange=${(event) => {
      save(event.target.value).catch((error) => onerror(error.message));
      event.target.value = '';
    }}>
      <option value="">Export ${count(images.length)}</option>
      <option value="txt">List of names</option>
      <option value="csv">CSV with labels</option>
    </select></label>`;
}

function Filters({ set, state, data, grey, order, chosen }) {
  const { columns, predictions } = data;
  const active = ['label', 'predicted', 'right', 'both', 'grey', 'chosen', 'q', 'lasso', ...Object.keys(RANGES)];
  const isActive = active.some((key) => state[key]);
  const clear = () => go(Object.fromEntries(active.map((key) => [key, null])));
  const three = (key, [yes, no], note) => html`
    <${Field} title=${note}>
      <span class="joined" role="group" aria-label=${note}>
        ${[
          [undefined, 'All'],
          ['yes', yes],
          ['no', no],
        ].map(
          ([value, text]) =>
            html`<button aria-pressed=${state[key] === value} onClick=${() => go({ [key]: value ?? null, image: null })}>${text}</button>`,
        )}
      </span>
    <//>`;
  return html`<section id="filters" class="filters" aria-label="Filters">
    <div class="filters-head"><h2>Filters</h2>
      <button disabled=${!isActive} onClick=${clear}>Clear</button></div>
    <${Classes} set=${set} title="Class" key="label" name="label" state=${state} />
    ${predictions && html`
      <${Classes} set=${set} title="Predicted class" name="predicted" state=${state} />
      ${three('right', ['Right', 'Wrong'], 'Prediction')}`}
    ${Object.entries(RANGES).map(([key, { title, from, span }]) => {
      const column = data[from]?.[key];
      return column && html`<${Range} key=${key} name=${key} title=${title} column=${column} span=${span}
        state=${state} />`;
    })}
    ${three('grey', ['Grey', 'Colour'], 'Colour')}
    ${state.grey && !grey.value && html`<p class="soft">${grey.error ?? 'Reading every picture …'}</p>`}
    <${Field} title="Chosen by hand">
      <span class="joined" role="group" aria-label="Chosen by hand">
        <button aria-pressed=${!state.chosen} onClick=${() => go({ chosen: null })}>All</button>
        <button aria-pressed=${state.chosen === 'yes'} onClick=${() => go({ chosen: 'yes' })}>Chosen (${count(chosen.size)})</button>
      </span>
      <p class="soft">Space or Ctrl-click chooses a picture, Shift a row of them.</p>
    <//>
  </section>`;
}

/** Classes by which to filter, as a field with suggestions, and a button for each that is set. */
function Classes({ set, title, name, state }) {
  const labels = parseList(state[name]);
  const list = `${name}-classes`;
  const add = (event) => {
    const text = event.target.value.trim().toLowerCase();
    const at = set.classes.findIndex(({ id, name }) => [id, name, `${name} (${id})`].some((one) => one.toLowerCase() === text));
    if (at < 0) return;
    event.target.value = '';
    go({ [name]: [...new Set([...labels, at])].join(), image: null });
  };
  const drop = (label) => go({ [name]: labels.filter((other) => other !== label).join(), image: null });
  // A word that is typed may go on; one that was chosen from the list is whole.
  const picked = (event) => [undefined, 'insertReplacementText'].includes(event.inputType);
  return html`<${Field} title=${title}>
    <input list=${list} aria-label=${title} placeholder="Any" onChange=${add} onInput=${(event) => picked(event) && add(event)} />
    <datalist id=${list}>
      ${set.classes.map(({ id, name }) => html`<option value=${name && name !== id ? `${name} (${id})` : id} />`)}
    </datalist>
    ${labels.length > 0 &&
    html`<div class="tags">${labels.map(
      (label) => html`<button class="tag" aria-label=${`Remove ${words(set, label)}`} onClick=${() => drop(label)}>${short(set, label)} ✕</button>`,
    )}</div>`}
  <//>`;
}

/** A range of a column: a histogram to drag on, and two fields. */
function Range({ name, title, column, span, state }) {
  // The pictures come first.
  const [bins, setBins] = useState({ low: 0, high: 0, counts: [] });
  useEffect(() => {
    const later = setTimeout(() => setBins(histogram(column, span)), 50);
    return () => clearTimeout(later);
  }, [column]);
  const [low, high] = parseRange(state[name]) ?? [-Infinity, Infinity];
  const change = (low, high) => go({ [name]: formatRange(low, high), image: null }, true);
  const field = (label, value, set) => html`<input type="number" step="any" aria-label=${`${title}, ${label}`}
    placeholder=${label} value=${Number.isFinite(value) ? value : ''}
    onInput=${(event) => set(event.target.value === '' ? undefined : Number(event.target.value))} />`;
  return html`<${Field} title=${title}>
    <${Histogram} bins=${bins} low=${low} high=${high} onrange=${change} />
    <div class="pair">
      ${field('from', low, (value) => change(value ?? -Infinity, high))}
      ${field('to', high, (value) => change(low, value ?? Infinity))}
    </div>
  <//>`;
}
