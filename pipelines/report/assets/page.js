// Shared by every report page: reading the data blocks, building elements, rounding, tooltips, copying.
// Text from a run (file names above all) is only ever set as text, never parsed as HTML.

/** The JSON block that page.py wrote under this name. */
function readData(name) {
  return JSON.parse(document.getElementById(`data-${name}`).textContent);
}

const ARRAYS = { u1: Uint8Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array };

/** An array that `packed` in page.py wrote: base64 of little-endian numbers. */
function unpack(text, kind) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = binary.charCodeAt(i);
  return new ARRAYS[kind](bytes.buffer);
}

/** An element with attributes and children; strings become text. Keys with a function are event listeners. */
function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
function drawing(tag, attributes = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function') node.addEventListener(key, value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const byId = (id) => document.getElementById(id);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const compareText = (a, b) => (a < b ? -1 : Number(a > b)); // by code unit: a locale's order takes seconds for 100,000 names

/** A verdict as a small coloured word. */
function badge(kind, text = kind) {
  return element('span', { class: `badge badge-${kind}` }, text);
}

/** A picture that is inside the page. */
function embedded(kind, data, attributes = {}) {
  return element('img', { alt: '', draggable: 'false', ...attributes, src: `data:image/${kind};base64,${data}` });
}

// Rounding: the rules of words.py and percentages.py.

const MINUS = '\u2212';
const DASH = '\u2013';
const NBSP = '\u00a0';
const grouped = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

function formatNumber(value, digits = 4) {
  if (value === null || !Number.isFinite(value)) return DASH;
  const size = Math.abs(value);
  let text;
  if (size >= 10 ** (digits - 1)) text = grouped.format(size);
  else if (size === 0) text = '0';
  else if (size >= 1e-4) text = size.toPrecision(digits);
  else text = size.toExponential(1);
  return value < 0 ? MINUS + text : text;
}

/** A false-alarm rate that is asked: never rounded down. */
function formatAsked(rate) {
  if (rate === null || !Number.isFinite(rate)) return DASH;
  const value = 100 * rate;
  if (value === 0) return `0${NBSP}%`;
  const decimals = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  const steps = Number((value * 10 ** decimals).toPrecision(12)); // what a float adds is no reason to round up
  return `${Number((Math.ceil(steps) / 10 ** decimals).toFixed(decimals))}${NBSP}%`;
}

function formatCount(count, one, many = `${one}s`) {
  return `${grouped.format(count)} ${count === 1 ? one : many}`;
}

/** Round steps between `low` and `high`, about `count` of them. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i += 1) found.push(i * step);
  return { values: found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

/** One-line explanations: everything with data-tip shows it on hover and on focus. */
function startTips() {
  const tip = element('div', { class: 'tip', id: 'tip', role: 'tooltip', hidden: true });
  document.body.append(tip);
  const show = (event) => {
    const target = event.target instanceof Element ? event.target.closest('[data-tip]') : null;
    if (!target) return;
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    const box = target.getBoundingClientRect();
    const left = clamp(box.left + box.width / 2 - tip.offsetWidth / 2, 8, document.documentElement.clientWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 8;
    tip.style.setProperty('left', `${left}px`);
    tip.style.setProperty('top', `${above > 4 ? above : Math.min(box.bottom + 8, innerHeight - tip.offsetHeight - 4)}px`);
    target.setAttribute('aria-describedby', 'tip');
  };
  const hide = (event) => {
    const target = event.target instanceof Element ? event.target.closest('[data-tip]') : null;
    if (target) target.removeAttribute('aria-describedby');
    tip.hidden = true;
  };
  for (const name of ['pointerover', 'focusin']) document.addEventListener(name, show);
  for (const name of ['pointerout', 'focusout', 'scroll']) document.addEventListener(name, hide, { capture: name === 'scroll', passive: true });
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') tip.hidden = true;
  });
}

/** Buttons with data-copy copy the element of that id, or the text before them. */
function startCopying() {
  document.addEventListener('click', async (event) => {
    const button = event.target.closest('[data-copy]');
    if (!button) return;
    const source = button.dataset.copy ? byId(button.dataset.copy) : button.parentElement.querySelector('code');
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = 'Copied';
    } catch {
      getSelection().selectAllChildren(source); // no clipboard here: select it for the reader's own copy key
      button.textContent = 'Selected';
    }
    setTimeout(() => { button.textContent = label; }, 1500);
  });
}

/** Printing shows what is folded away. */
function startPrinting() {
  addEventListener('beforeprint', () => {
    for (const details of document.querySelectorAll('details')) details.open = true;
  });
}

/** What every page does that has more than a figure to show. */
function startPage() {
  startTips();
  startCopying();
  startPrinting();
}
