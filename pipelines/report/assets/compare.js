// Two pictures on one place with a divider between them: before on the left, after on the right.
// Used for an image and its heat map; restored images use it the same way.

/**
 * @param {object} layers
 * @param {Element[]} layers.before pictures of one size, each filling the place; the first one gives its shape
 * @param {Element[]} layers.after the same; with none there is nothing to compare, and no divider
 * @param {string} layers.beforeLabel
 * @param {string} layers.afterLabel
 * @returns {Element}
 */
function createCompare({ before, after, beforeLabel, afterLabel }) {
  const node = element('div', { class: 'compare' }, element('div', { class: 'compare-layer' }, ...before));
  before[0].addEventListener('load', () => {
    node.style.setProperty('--ratio', String(before[0].naturalWidth / before[0].naturalHeight));
    node.style.setProperty('--natural', String(before[0].naturalWidth));
  });
  if (!after.length) return node;
  const handle = element('div', {
    class: 'compare-handle', role: 'slider', tabindex: '0', 'aria-label': `Divider between ${beforeLabel} and ${afterLabel}`,
    'aria-valuemin': '0', 'aria-valuemax': '100', 'aria-orientation': 'horizontal',
  });
  node.append(element('div', { class: 'compare-layer compare-after' }, ...after),
    element('span', { class: 'compare-label compare-label-before', 'aria-hidden': 'true' }, beforeLabel),
    element('span', { class: 'compare-label compare-label-after', 'aria-hidden': 'true' }, afterLabel),
    handle);
  let split = 50;

  function setSplit(percent) {
    split = clamp(percent, 0, 100);
    node.style.setProperty('--split', `${split}%`);
    handle.setAttribute('aria-valuenow', String(Math.round(split)));
    handle.setAttribute('aria-valuetext', `${Math.round(split)} % ${beforeLabel}, ${Math.round(100 - split)} % ${afterLabel}`);
  }

  function follow(event) {
    const box = node.getBoundingClientRect();
    setSplit((100 * (event.clientX - box.left)) / box.width);
  }

  // Pressing anywhere on the picture brings the divider there; the handle itself also works by touch.
  node.addEventListener('pointerdown', (event) => {
    if (event.button !== 0 || (event.pointerType === 'touch' && event.target !== handle)) return;
    event.preventDefault();
    handle.focus({ preventScroll: true });
    node.setPointerCapture(event.pointerId);
    follow(event);
  });
  node.addEventListener('pointermove', (event) => {
    if (node.hasPointerCapture(event.pointerId)) follow(event);
  });
  handle.addEventListener('keydown', (event) => {
    const step = event.shiftKey ? 10 : 2;
    const target = { ArrowLeft: split - step, ArrowDown: split - step, ArrowRight: split + step, ArrowUp: split + step,
      PageDown: split - 10, PageUp: split + 10, Home: 0, End: 100 }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    event.stopPropagation(); // arrows change the picture elsewhere in the lightbox
    setSplit(target);
  });
  setSplit(split);
  return node;
}
