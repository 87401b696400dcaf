// A grid of pictures on one canvas, of any length. Only what is in view is drawn; one cell of the document, the one with
// the focus, lies over the canvas, so that keyboard and screen readers have a grid, too.
import { html, useEffect, useRef } from './vendor/preact.js';
import { Pictures } from './pixels.js';

/** The tallest element that browsers place exactly. */
const TALLEST = 15e6;
const GAP = 4;
const CAPTION = 18;
/** Cells at least so wide have words under them. */
const CAPTION_FROM = 88;

class View {
  constructor(scroller) {
    this.scroller = scroller;
    this.content = scroller.firstElementChild;
    this.canvas = scroller.querySelector('canvas');
    this.cell = scroller.querySelector('[role=gridcell]');
    this.focus = 0;
    this.order = new Uint32Array(0);
    this.draw = this.draw.bind(this);
    this.observer = new ResizeObserver(() => this.layout());
    this.observer.observe(scroller);
    this.redraw = this.redraw.bind(this);
    scroller.addEventListener('scroll', this.redraw, { passive: true });
    addEventListener('theme', this.redraw);
  }

  close() {
    this.observer.disconnect();
    removeEventListener('theme', this.redraw);
    cancelAnimationFrame(this.frame);
  }

  update(props) {
    const old = this.props;
    this.props = props;
    if (old?.split !== props.split) {
      const [load, error] = [() => this.redraw(), (message) => this.props.onerror(message)];
      this.pictures = new Pictures(props.split, props.shape, load, error);
    }
    if (old?.order !== props.order) {
      this.order = props.order;
      this.focus = Math.min(this.focus, Math.max(0, this.order.length - 1));
      const at = props.at === undefined ? -1 : this.order.indexOf(props.at);
      if (at >= 0) this.focus = at;
      if (old && old.order !== props.order) this.scroller.scrollTop = 0;
    }
    this.layout();
  }

  layout() {
    const { size } = this.props;
    const [width, height] = [this.scroller.clientWidth, this.scroller.clientHeight];
    this.side = Math.min(size, width - 2 * GAP);
    this.caption = this.side >= CAPTION_FROM ? CAPTION : 0;
    this.columns = Math.max(1, Math.floor((width - GAP) / (this.side + GAP)));
    this.left = Math.floor((width - this.columns * (this.side + GAP) + GAP) / 2);
    this.pitch = this.side + GAP + this.caption;
    this.rows = Math.ceil(this.order.length / this.columns);
    this.total = this.rows * this.pitch + GAP;
    this.height = height;
    this.content.style.height = `${Math.max(height, Math.min(this.total, TALLEST))}px`;
    this.scroller.setAttribute('aria-rowcount', this.rows);
    this.scroller.setAttribute('aria-colcount', this.columns);
    const scale = devicePixelRatio;
    const [wide, high] = [Math.round(width * scale), Math.round(height * scale)];
    if (this.canvas.width !== wide || this.canvas.height !== high) {
      this.canvas.width = wide;
      this.canvas.height = high;
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    this.redraw();
  }

  /** Pixels of the whole grid above what is in view. */
  get top() {
    const [max, length] = [this.total - this.height, this.content.offsetHeight - this.height];
    return length <= 0 || max <= 0 ? 0 : (this.scroller.scrollTop * max) / length;
  }

  scrollToTop(top) {
    const [max, length] = [this.total - this.height, this.content.offsetHeight - this.height];
    this.scroller.scrollTop = max <= 0 ? 0 : (top * length) / max;
  }

  redraw() {
    this.frame ??= requestAnimationFrame(this.draw);
  }

  place(position) {
    const [row, column] = [Math.floor(position / this.columns), position % this.columns];
    return [this.left + column * (this.side + GAP), GAP + row * this.pitch - this.top];
  }

  draw() {
    this.frame = undefined;
    const { props, pictures, order, side } = this;
    const scale = devicePixelRatio;
    const context = this.canvas.getContext('2d', { alpha: false });
    const style = getComputedStyle(this.scroller);
    const colors = new Map();
    const color = (name) => {
      if (!colors.has(name)) colors.set(name, style.getPropertyValue(name));
      return colors.get(name);
    };
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.fillStyle = color('--ground');
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    // Pixels as they are where they are enlarged.
    context.imageSmoothingEnabled = side * scale < pictures.width;
    const aspect = pictures.height / pictures.width;
    const [wide, high] = aspect > 1 ? [side / aspect, side] : [side, side * aspect];
    const first = Math.max(0, Math.floor((this.top - GAP) / this.pitch)) * this.columns;
    const rows = Math.ceil(this.height / this.pitch) + 1;
    const end = Math.min(order.length, first + rows * this.columns);
    const [ink, empty] = [color('--ink'), color('--raised')];
    context.font = `12px ${color('font-family')}`;
    context.textBaseline = 'top';
    pictures.begin();
    let complete = true;
    for (let position = first; position < end; position++) {
      const image = order[position];
      const [left, top] = this.place(position);
      const [x, y] = [left + (side - wide) / 2, top + (side - high) / 2];
      const place = pictures.get(order, position);
      if (place) {
        context.drawImage(place.bitmap, place.x, place.y, pictures.width, pictures.height, x, y, wide, high);
      } else {
        complete = false;
        context.fillStyle = empty;
        context.fillRect(x, y, wide, high);
      }
      const look = props.look(image);
      if (look.boxes) this.drawBoxes(context, look.boxes, x, y, wide / pictures.width, color);
      if (look.mark) {
        // Not only a colour: wrong ones have a broken line.
        context.fillStyle = color(look.mark === 'right' ? '--right' : '--wrong');
        const bar = Math.min(4, Math.max(2, Math.round(side / 24)));
        context.fillRect(left, top + side - bar, side, bar);
        if (look.mark === 'wrong') {
          context.fillStyle = color('--ground');
          for (let at = bar * 2; at < side; at += bar * 3) context.fillRect(left + at, top + side - bar, bar, bar);
        }
      }
      if (look.chosen) {
        context.strokeStyle = color('--accent');
        context.lineWidth = 3;
        context.strokeRect(left + 1.5, top + 1.5, side - 3, side - 3);
      }
      if (this.caption) {
        context.fillStyle = ink;
        context.fillText(fit(context, look.caption, side), left, top + side + 3);
      }
    }
    // One screen ahead, so that scrolling meets pictures.
    for (let at = end; at < Math.min(order.length, 2 * end - first); at += pictures.block) pictures.get(order, at);
    pictures.end();
    this.scroller.dataset.drawn = complete ? `${first}-${end}` : '';
    const [left, top] = this.place(this.focus);
    const cell = this.cell;
    cell.hidden = order.length === 0;
    cell.style.transform = `translate(${left}px, ${Math.max(-2 * side, Math.min(top, this.height + side))}px)`;
    cell.style.width = cell.style.height = `${side}px`;
    if (order.length > 0) {
      const row = Math.floor(this.focus / this.columns);
      cell.parentElement.setAttribute('aria-rowindex', row + 1);
      cell.setAttribute('aria-colindex', (this.focus % this.columns) + 1);
      const label = props.look(order[this.focus]).label;
      if (cell.getAttribute('aria-label') !== label) cell.setAttribute('aria-label', label);
    }
  }

  drawBoxes(context, boxes, x, y, scale, color) {
    for (const [name, [x0, y0, x1, y1]] of Object.entries(boxes)) {
      context.strokeStyle = color(name === 'truth' ? '--truth' : '--guess');
      context.lineWidth = 2;
      context.setLineDash(name === 'truth' ? [] : [4, 3]);
      context.strokeRect(x + x0 * scale, y + y0 * scale, (x1 + 1 - x0) * scale, (y1 + 1 - y0) * scale);
    }
    context.setLineDash([]);
  }

  /** The position under a pointer, or -1. */
  at(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    const x = event.clientX - left - this.left;
    const y = event.clientY - top + this.top - GAP;
    const [column, row] = [Math.floor(x / (this.side + GAP)), Math.floor(y / this.pitch)];
    const position = row * this.columns + column;
    const inside = x >= 0 && column < this.columns && x % (this.side + GAP) < this.side && y >= 0;
    return inside && position < this.order.length ? position : -1;
  }

  focusOn(position) {
    this.focus = Math.max(0, Math.min(this.order.length - 1, position));
    const above = Math.floor(this.focus / this.columns) * this.pitch;
    if (above < this.top) this.scrollToTop(above);
    else if (above + this.pitch + GAP > this.top + this.height) this.scrollToTop(above + this.pitch + GAP - this.height);
    this.cell.focus({ preventScroll: true });
    this.redraw();
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.height / this.pitch)) * this.columns;
    const moves = {
      ArrowRight: 1,
      ArrowLeft: -1,
      ArrowDown: this.columns,
      ArrowUp: -this.columns,
      PageDown: page,
      PageUp: -page,
    };
    const ends = { Home: 0, End: this.order.length - 1 };
    if (this.order.length === 0 || event.altKey) return;
    if (event.key === 'Enter') this.props.onopen(this.order[this.focus]);
    else if (event.key === ' ') this.props.onchoose(this.order[this.focus], event.shiftKey);
    else if (event.key in moves) this.focusOn(this.focus + moves[event.key]);
    else if (event.key in ends) this.focusOn(ends[event.key]);
    else return;
    event.preventDefault();
  }

  click(event) {
    const position = this.at(event);
    if (position < 0) return;
    this.focus = position;
    this.cell.focus({ preventScroll: true });
    const image = this.order[position];
    if (event.shiftKey || event.ctrlKey || event.metaKey) this.props.onchoose(image, event.shiftKey);
    else this.props.onopen(image);
    this.redraw();
  }
}

const widths = new Map();

/** `text`, cut to `width` pixels. */
function fit(context, text, width) {
  const key = `${width} ${text}`;
  if (!widths.has(key)) {
    let cut = text;
    while (cut.length > 1 && context.measureText(cut).width > width) cut = `${cut.slice(0, -2)}…`;
    if (widths.size > 5000) widths.clear();
    widths.set(key, cut);
  }
  return widths.get(key);
}

/**
 * The grid of the images `order` of a split. `look(image)` says how one looks: `caption`, `label` for screen readers,
 * `mark` right or wrong, `boxes`, `chosen`. `at`: the image that has the focus at first.
 */
export function Grid(props) {
  const scroller = useRef();
  const view = useRef();
  useEffect(() => {
    view.current = new View(scroller.current);
    return () => view.current.close();
  }, []);
  useEffect(() => view.current.update(props));
  return html`
    <div class="grid" role="grid" aria-label="Pictures" ref=${scroller} onClick=${(event) => view.current.click(event)}
      onKeyDown=${(event) => view.current.key(event)}>
      <div class="content" role="rowgroup">
        <div class="window" role="row">
          <canvas aria-hidden="true"></canvas>
          <div role="gridcell" tabindex="0"></div>
        </div>
      </div>
    </div>`;
}
