// The map of the features: pictures that the network finds alike lie together. A lasso takes them to the grid. The map by
// main directions is there at once, and is shown until the one by neighbours is ready.
import { html, useEffect, useMemo, useRef, useState } from './vendor/preact.js';
import { short, usePromise, words } from './data.js';
import { layoutIn, layoutOf, parseLasso, within } from './lasso.js';
import { useSplit } from './loaded.js';
import { Message, count, percent } from './parts.js';
import { Still } from './picture.js';
import { go, link } from './state.js';

/** A colour for each class, the hues far apart for neighbours. */
const hue = (label) => (label * 137.508) % 360;

/** The fraction of a map by neighbours that is done. */
function useArranging() {
  const [done, set] = useState(0);
  useEffect(() => {
    const told = (event) => set(event.detail);
    addEventListener('arranging', told);
    return () => removeEventListener('arranging', told);
  }, []);
  return done;
}

export function MapPage({ set, state, split, run }) {
  const data = useSplit(set, split, run, {});
  const has = set.runs[run]?.features?.includes(split);
  const wanted = layoutIn(state);
  const main = usePromise(() => has && layoutOf(run, split, 'pca'), [run, split]);
  const alike = usePromise(() => main.value && wanted === 'umap' && layoutOf(run, split, 'umap'), [main.value, run, split, wanted]);
  const done = useArranging();
  const layout = (wanted === 'umap' && alike.value) || main.value;
  const error = alike.error ?? main.error;
  const shown = layout && layout === main.value ? 'pca' : 'umap';
  const canvas = useRef();
  const drawn = useRef([]);
  const [under, setUnder] = useState();
  const [line, setLine] = useState([]);
  const { columns, predictions } = data;
  const byRight = state.color !== 'class';
  const lasso = shown === wanted ? parseLasso(state.lasso) : undefined;
  const inside = useMemo(() => layout && lasso && within(layout, lasso), [layout, shown, state.lasso]);
  const ready = layout && columns && predictions;

  const draw = () => {
    if (!ready || !canvas.current) return;
    const box = canvas.current.getBoundingClientRect();
    const scale = devicePixelRatio;
    const [width, height] = [Math.round(box.width * scale), Math.round(box.height * scale)];
    Object.assign(canvas.current, { width, height });
    const context = canvas.current.getContext('2d');
    const style = getComputedStyle(canvas.current);
    const color = (name) => style.getPropertyValue(name).trim();
    const [right, wrong] = [color('--right'), color('--wrong')];
    const dark = color('color-scheme') === 'dark';
    const size = Math.max(2, (columns.rows > 20000 ? 1.5 : 3) * scale);
    const alpha = columns.rows > 20000 ? 0.5 : 0.75;
    for (let image = 0; image < columns.rows; image++) {
      const label = columns.label[image];
      const isRight = predictions.predicted[image] === label;
      context.fillStyle = byRight ? (isRight ? right : wrong) : `hsl(${hue(label)} 65% ${dark ? 62 : 42}%)`;
      context.globalAlpha = inside && !inside[image] ? 0.12 : alpha;
      context.fillRect(layout.xy[2 * image] * width - size / 2, layout.xy[2 * image + 1] * height - size / 2, size, size);
    }
    context.globalAlpha = 1;
    const path = line.length > 0 ? line : (lasso ?? []);
    if (path.length > 1) {
      context.beginPath();
      path.forEach(([x, y], at) => context[at ? 'lineTo' : 'moveTo'](x * width, y * height));
      context.closePath();
      context.strokeStyle = color('--accent');
      context.lineWidth = 2 * scale;
      context.stroke();
    }
  };
  useEffect(() => {
    draw();
    addEventListener('theme', draw);
    addEventListener('resize', draw);
    return () => {
      removeEventListener('theme', draw);
      removeEventListener('resize', draw);
    };
  });
  if (!has) {
    return html`<${Message} text=${`This run has no features for ${split}. Write them with: tinyres eval RUN SHARDS --split ${split} --features`} />`;
  }
  if (error ?? data.error) return html`<${Message} error=${error ?? data.error} />`;
  if (!ready) return html`<${Message} text="Loading …" />`;

  const at = (event) => {
    const box = canvas.current.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  const nearest = ([x, y]) => {
    const { width, height } = canvas.current.getBoundingClientRect();
    let [best, distance] = [undefined, 15 ** 2];
    for (let image = 0; image < columns.rows; image++) {
      const [dx, dy] = [(layout.xy[2 * image] - x) * width, (layout.xy[2 * image + 1] - y) * height];
      if (dx * dx + dy * dy < distance) [best, distance] = [image, dx * dx + dy * dy];
    }
    return best;
  };
  const down = (event) => {
    event.currentTarget.setPointerCapture(event.pointerId);
    drawn.current = [at(event)];
  };
  const move = (event) => {
    if (event.buttons === 1 && drawn.current.length > 0) {
      drawn.current.push(at(event));
      setLine([...drawn.current]);
    } else {
      setUnder(nearest(at(event)));
    }
  };
  const up = (event) => {
    const path = drawn.current;
    drawn.current = [];
    setLine([]);
    if (path.length < 5) {
      const image = nearest(at(event));
      if (image !== undefined) location.hash = link({ page: 'grid', split, run, image }, {});
      return;
    }
    const every = Math.ceil(path.length / 40);
    // The line is one of the map that is shown.
    go({ layout: shown === 'pca' ? 'pca' : null, lasso: path.filter((_, at) => at % every === 0).map((point) => point.map((side) => side.toFixed(3)).join('_')).join(',') });
  };
  const chosen = inside ? inside.reduce((sum, one) => sum + one, 0) : 0;
  return html`<main class="page grid-page">
    <div class="page-head"><h1>Map</h1>
      <span class="joined" role="group" aria-label="Layout">
        <button aria-pressed=${wanted === 'umap'} onClick=${() => go({ layout: null, lasso: null }, true)}>Neighbours</button>
        <button aria-pressed=${wanted === 'pca'} onClick=${() => go({ layout: 'pca', lasso: null }, true)}>Main directions</button></span>
      <span class="joined" role="group" aria-label="Colour">
        <button aria-pressed=${byRight} onClick=${() => go({ color: null }, true)}>Right or wrong</button>
        <button aria-pressed=${!byRight} onClick=${() => go({ color: 'class' }, true)}>Class</button></span>
      ${lasso && html`<a class="button" href=${link({ page: 'grid', split, run, layout: state.layout, lasso: state.lasso }, {})}>Show ${count(chosen)} pictures</a>
        <button onClick=${() => go({ lasso: null })}>Clear</button>`}
    </div>
    <p class="soft map-note">${
      shown === 'pca'
        ? `The two main directions of the features (PCA), ${(100 * layout.explained).toFixed(0)}% of their variance.`
        : 'Pictures that the network finds alike lie together (UMAP of the features): distances between groups mean little.'
    } Draw a line around pictures to take them to the grid.
      ${shown !== wanted && html`<span class="arranging" role="status">Arranging by neighbours <progress value=${done} aria-label="Arranged"></progress>
        ${percent(done, 0)}</span>`}</p>
    <div class="map">
      <canvas ref=${canvas} role="img" aria-label=${`Map of ${count(columns.rows)} pictures by their features`}
        onPointerDown=${down} onPointerMove=${move} onPointerUp=${up} onPointerLeave=${() => setUnder(undefined)}></canvas>
      ${under !== undefined && html`<div class="under"><${Still} split=${split} shape=${set.shape} image=${under} zoom=${2} label="" />
        <p>${words(set, columns.label[under])}<br /><small>predicted ${short(set, predictions.predicted[under])}</small></p></div>`}
    </div>
  </main>`;
}
