// One picture, large: its boxes, what the run says of it, where it comes from, and pictures like it.
import { html, useEffect, useMemo, useRef, useState } from './vendor/preact.js';
import { bytes, json, short, usePromise, words } from './data.js';
import { namesOf } from './loaded.js';
import { Pictures } from './pixels.js';
import { boxesOf } from './gridpage.js';
import { go, link } from './state.js';
import { count, fixed, percent } from './parts.js';

const ZOOMS = [1, 2, 4, 6, 8, 12, 16];

/** A picture on a canvas of its own. `zoom`: pixels of the screen for one of the picture, or it fills its place. */
export function Still({ split, shape, image, zoom, boxes, label }) {
  const canvas = useRef();
  const [error, setError] = useState();
  const { value } = usePromise(async () => {
    const pictures = new Pictures(split, shape, () => {}, () => {});
    return createImageBitmap(pictures.decode(await bytes(pictures.path([image])), 1));
  }, [split, image]);
  const [, height, width] = shape;
  const draw = () => {
    if (!value || !canvas.current) return;
    const scale = (zoom ?? 1) * devicePixelRatio;
    canvas.current.width = Math.round(width * scale);
    canvas.current.height = Math.round(height * scale);
    const context = canvas.current.getContext('2d');
    context.imageSmoothingEnabled = false;
    context.drawImage(value, 0, 0, width * scale, height * scale);
    const style = getComputedStyle(canvas.current);
    for (const [name, [x0, y0, x1, y1]] of Object.entries(boxes ?? {})) {
      context.strokeStyle = style.getPropertyValue(name === 'truth' ? '--truth' : '--guess');
      context.lineWidth = 2 * devicePixelRatio;
      context.setLineDash(name === 'truth' ? [] : [6, 4].map((length) => length * devicePixelRatio));
      context.strokeRect(x0 * scale, y0 * scale, (x1 + 1 - x0) * scale, (y1 + 1 - y0) * scale);
    }
  };
  useEffect(() => {
    draw();
    addEventListener('theme', draw);
    return () => removeEventListener('theme', draw);
  });
  const size = zoom ? { width: `${width * zoom}px`, height: `${height * zoom}px` } : undefined;
  return html`<canvas ref=${canvas} role=${label ? 'img' : undefined} aria-label=${label || undefined}
    aria-hidden=${label ? undefined : 'true'} width=${width} height=${height} style=${size}></canvas>`;
}

export function Picture({ set, state, split, run, data, order, image, chosen, onchoose }) {
  const dialog = useRef();
  const { columns, predictions } = data;
  const names = usePromise(() => namesOf(split), [split]);
  const position = useMemo(() => order.indexOf(image), [order, image]);
  const [, height, width] = set.shape;
  const fitting = ZOOMS.findLast((zoom) => zoom * Math.max(width, height) <= Math.min(512, innerWidth - 48)) ?? 1;
  const zoom = ZOOMS.includes(Number(state.zoom)) ? Number(state.zoom) : fitting;
  const at = ZOOMS.indexOf(zoom);
  const close = () => go({ image: null, zoom: null });
  const step = (by) => {
    const next = order[position + by];
    if (position >= 0 && next !== undefined) go({ image: next }, true);
  };
  useEffect(() => {
    const from = document.activeElement;
    dialog.current.showModal();
    return () => from?.focus?.({ preventScroll: true });
  }, []);
  const key = (event) => {
    if (event.target.matches('input, select')) return;
    const keys = {
      ArrowRight: () => step(1),
      ArrowLeft: () => step(-1),
      '+': () => go({ zoom: ZOOMS[Math.min(ZOOMS.length - 1, at + 1)] }, true),
      '-': () => go({ zoom: ZOOMS[Math.max(0, at - 1)] }, true),
      b: () => setShown((shown) => !shown),
      ' ': () => !event.target.matches('button, a') && onchoose(image),
    };
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key !== ' ' || !event.target.matches('button, a')) event.preventDefault();
    act();
  };
  const [shown, setShown] = useState(true);
  const boxes = boxesOf(data, image);
  const label = columns.label[image];
  const guess = predictions?.predicted[image];
  const marked = predictions && label >= 0;
  const right = guess === label;
  const list = (box) => Array.from(box, (side) => Number(side.toFixed(1))).join(', ');
  const facts = [
    ['Image', count(image)],
    ['Name', html`<span class="name">${names.value ? names.value.name(image) : (names.error ?? '…')}</span>`],
    ['Class', label < 0 ? 'none' : html`<a href=${link({ page: 'grid', label, image: null })}>${words(set, label)}</a> <code>${set.classes[label].id}</code>`],
    boxes.truth && ['Box', html`<i class="key truth"></i>${list(boxes.truth)}`],
    boxes.guess && ['Predicted box', html`<i class="key guess"></i>${list(boxes.guess)}`],
    predictions?.iou && ['IoU', fixed(predictions.iou[image])],
    predictions && ['Loss', fixed(predictions.loss[image])],
    predictions && ['Margin', fixed(predictions.margin[image])],
    predictions && ['Entropy', `${fixed(predictions.entropy[image])} nats`],
    predictions && ['Rank of the class', predictions.rank[image]],
  ].filter(Boolean);
  const title = `Picture ${image}: ${words(set, label)}`;
  return html`<dialog ref=${dialog} class="picture" aria-label=${title} onClose=${close} onKeyDown=${key}
    onClick=${(event) => event.target === dialog.current && close()}>
    <div class="picture-head">
      <h2>${short(set, label)}${marked && html` <span class=${`verdict ${right ? 'right' : 'wrong'}`}>${right ? '✓ right' : `✗ taken for ${short(set, guess)}`}</span>`}</h2>
      <span class="spring"></span>
      <button class="icon" aria-label="Previous picture" disabled=${position <= 0} onClick=${() => step(-1)}>←</button>
      <span class="soft">${position < 0 ? 'not among those shown' : `${count(position + 1)} of ${count(order.length)}`}</span>
      <button class="icon" aria-label="Next picture" disabled=${position < 0 || position >= order.length - 1} onClick=${() => step(1)}>→</button>
      <button class="icon" aria-label="Close" onClick=${close}>✕</button>
    </div>
    <div class="picture-body">
      <div class="stage">
        <div class="frame"><${Still} split=${split} shape=${set.shape} image=${image} zoom=${zoom} boxes=${shown ? boxes : {}} label=${title} /></div>
        <div class="tools">
          <span class="joined" role="group" aria-label="Zoom">
            <button class="icon" aria-label="Zoom out" disabled=${at <= 0} onClick=${() => go({ zoom: ZOOMS[at - 1] }, true)}>−</button>
            <span class="value">${zoom}×</span>
            <button class="icon" aria-label="Zoom in" disabled=${at >= ZOOMS.length - 1} onClick=${() => go({ zoom: ZOOMS[at + 1] }, true)}>+</button>
          </span>
          ${(boxes.truth || boxes.guess) && html`<button aria-pressed=${shown} onClick=${() => setShown(!shown)}>Boxes</button>`}
          <button aria-pressed=${chosen.has(image)} onClick=${() => onchoose(image)}>${chosen.has(image) ? 'Chosen' : 'Choose'}</button>
        </div>
      </div>
      <div class="about">
        ${predictions && html`<${Probabilities} set=${set} predictions=${predictions} image=${image} label=${label} />`}
        <h3>About</h3>
        <dl>${facts.map(([term, value]) => html`<dt>${term}</dt><dd>${value}</dd>`)}</dl>
        ${set.runs[run]?.features?.includes(split) && html`<${Neighbours} ...${{ set, split, run, columns, image }} />`}
      </div>
    </div>
  </dialog>`;
}

function Probabilities({ set, predictions, image, label }) {
  const width = predictions.top5.length / predictions.rows;
  const top = Array.from({ length: width }, (_, at) => [
    predictions.top5[width * image + at],
    predictions.top5_prob[width * image + at],
  ]);
  if (label >= 0 && !top.some(([one]) => one === label)) top.push([label, predictions.label_prob[image]]);
  return html`<h3>Probabilities</h3>
    <ol class="bars">${top.map(
      ([one, probability]) => html`<li class=${one === label ? 'is-label' : ''}>
        <a href=${link({ page: 'grid', predicted: one, image: null })}>${short(set, one)}</a>
        <span class="bar"><i style=${{ width: percent(probability) }}></i></span>
        <b>${percent(probability, 1)}</b>
        ${one === label && html`<span class="tag-label">label</span>`}
      </li>`,
    )}</ol>`;
}

function Neighbours({ set, split, run, columns, image }) {
  const { value, error } = usePromise(() => json(`/api/run/${run}/neighbours/${split}/${image}`), [run, split, image]);
  return html`<h3>Alike, by features</h3>
    ${error && html`<p class="trouble">${error}</p>`}
    <ul class="strip">${(value?.neighbours ?? []).map(
      ({ image, similarity }) => html`<li><a href=${link({ image })} title=${`similarity ${similarity.toFixed(3)}`}>
        <${Still} split=${split} shape=${set.shape} image=${image} label=${`image ${image}, ${words(set, columns.label[image])}`} />
        <span>${short(set, columns.label[image])}</span></a></li>`,
    )}</ul>`;
}
