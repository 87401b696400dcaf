// The page of the confusion matrix: what is taken for what, and the pictures behind each cell.
import { html, useEffect, useMemo, useRef, useState } from './vendor/preact.js';
import { short, usePromise, words } from './data.js';
import { analysisOf, useSplit } from './loaded.js';
import { Message, count, percent } from './parts.js';
import { Still } from './picture.js';
import { go, link } from './state.js';

const drill = (state, label, predicted) => link({ page: 'grid', split: state.split, run: state.run, label, predicted }, {});

function Matrix({ set, state, analysis }) {
  const canvas = useRef();
  const [cell, setCell] = useState([0, 0]);
  const byRow = state.scale !== 'log';
  const order = state.order === 'label' ? analysis.classes.map((_, label) => label) : analysis.order;
  const n = order.length;
  const { counts, most } = useMemo(() => {
    const place = new Int32Array(n);
    order.forEach((label, at) => (place[label] = at));
    const counts = new Uint32Array(n * n);
    let most = 1;
    for (const [label, predicted, number] of analysis.cells) {
      counts[place[label] * n + place[predicted]] = number;
      if (number > most) most = number;
    }
    return { counts, most };
  }, [analysis, state.order]);
  const draw = () => {
    const style = getComputedStyle(canvas.current);
    const rgb = (name) => {
      const hex = style.getPropertyValue(name).trim();
      return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    };
    const [ground, right, wrong] = [rgb('--raised'), rgb('--right'), rgb('--wrong')];
    canvas.current.width = canvas.current.height = n;
    const context = canvas.current.getContext('2d');
    const image = context.createImageData(n, n);
    for (let at = 0; at < n * n; at++) {
      const [row, column] = [Math.floor(at / n), at % n];
      const total = analysis.classes[order[row]][0];
      const strength = counts[at] === 0 ? 0 : byRow ? Math.sqrt(counts[at] / Math.max(1, total)) : Math.log1p(counts[at]) / Math.log1p(most);
      const ink = row === column ? right : wrong;
      for (let part = 0; part < 3; part++) image.data[4 * at + part] = ground[part] + (ink[part] - ground[part]) * strength;
      image.data[4 * at + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  };
  useEffect(() => {
    draw();
    addEventListener('theme', draw);
    return () => removeEventListener('theme', draw);
  }, [analysis, state.order, state.scale]);
  const under = (event) => {
    const box = canvas.current.getBoundingClientRect();
    const at = (position, start, length) => Math.max(0, Math.min(n - 1, Math.floor(((position - start) / length) * n)));
    return [at(event.clientY, box.top, box.height), at(event.clientX, box.left, box.width)];
  };
  const open = ([row, column]) => {
    location.hash = drill(state, order[row], order[column]);
  };
  const key = (event) => {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const step = event.shiftKey ? 10 : 1;
    if (event.key in moves) {
      const [down, across] = moves[event.key];
      const to = (value) => Math.max(0, Math.min(n - 1, value));
      setCell(([row, column]) => [to(row + step * down), to(column + step * across)]);
    } else if (event.key === 'Enter') {
      open(cell);
    } else {
      return;
    }
    event.preventDefault();
  };
  const [row, column] = cell;
  const number = counts[row * n + column];
  const total = analysis.classes[order[row]]?.[0] ?? 0;
  const text = `${words(set, order[row])} taken for ${words(set, order[column])}: ${count(number)} of ${count(total)}`;
  return html`<div class="matrix">
    <p class="soft">Rows are classes, columns what is predicted. A click, or Enter after the arrow keys, shows the pictures.</p>
    <div class="matrix-frame">
      <canvas ref=${canvas} tabindex="0" role="img" aria-label=${`Confusion matrix of ${n} classes. ${text}`} onKeyDown=${key}
        onPointerMove=${(event) => setCell(under(event))} onClick=${(event) => open(under(event))}></canvas>
      <i class="cursor" aria-hidden="true" style=${{ left: percent(column / n), top: percent(row / n), width: percent(1 / n), height: percent(1 / n) }}></i>
    </div>
    <p class="cell-text" role="status">
      ${row === column
        ? html`<b>${words(set, order[row])}</b> recognised: <b>${count(number)}</b> of ${count(total)}`
        : html`<b>${short(set, order[row])}</b> taken for <b>${short(set, order[column])}</b>: <b>${count(number)}</b> of ${count(total)}`}
    </p>
  </div>`;
}

export function ConfusionPage({ set, state, split, run }) {
  const { value: analysis, error } = usePromise(() => analysisOf(set, run, split), [run, split]);
  const data = useSplit(set, split, run, {});
  if (error) return html`<${Message} error=${error} />`;
  if (!analysis || !data.columns) return html`<${Message} text="Loading …" />`;
  const place = { ...state, split, run };
  const example = (label, predicted) => {
    const { columns, predictions } = data;
    if (!predictions) return undefined;
    for (let image = 0; image < columns.rows; image++) {
      if (columns.label[image] === label && predictions.predicted[image] === predicted) return image;
    }
  };
  const pair = ([a, b, ab, ba]) => {
    const one = (label, predicted, number) => {
      const image = number > 0 ? example(label, predicted) : undefined;
      return html`<a href=${drill(place, label, predicted)}>
        ${image !== undefined && html`<${Still} split=${split} shape=${set.shape} image=${image} label=${`an example: ${words(set, label)}`} />`}
        <span>${short(set, label)}<br /><small>for ${short(set, predicted)} · ${number}</small></span></a>`;
    };
    return html`<li><b>${ab + ba}</b>${one(a, b, ab)}${one(b, a, ba)}</li>`;
  };
  const toggle = (key, value, text) =>
    html`<button aria-pressed=${(state[key] ?? null) === value} onClick=${() => go({ [key]: value }, true)}>${text}</button>`;
  return html`<main class="page">
    <div class="page-head"><h1>Confusion</h1>
      <p class="soft">${count(analysis.images)} pictures of ${split} · top-1 <b>${percent(analysis.top1)}</b> · top-5 <b>${percent(analysis.top5)}</b></p>
      <span class="spring"></span>
      <span class="joined" role="group" aria-label="Shade">${toggle('scale', null, 'Part of the class')}${toggle('scale', 'log', 'Count, logarithmic')}</span>
      <span class="joined" role="group" aria-label="Order of classes">${toggle('order', null, 'Alike together')}${toggle('order', 'label', 'By label')}</span>
    </div>
    <div class="two confusion">
      <${Matrix} set=${set} state=${place} analysis=${analysis} />
      <section class="pairs" aria-label="Most confused"><h2>Most confused</h2>
        <ol>${analysis.confused.slice(0, 30).map(pair)}</ol></section>
    </div>
  </main>`;
}
