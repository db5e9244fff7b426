// The distribution of scores, the calibration scores outlined over it, and the threshold that can be dragged.

const MARGIN = { top: 16, right: 12, bottom: 44, left: 46 };

/** Draws into #histogram. `threshold` is null where none can be moved; one that judged all images is shown even so. */
function startHistogram(data, threshold) {
  const box = byId('histogram');
  const stretch = byId('histogram-log');
  const low = data.edges[0];
  const high = data.edges[data.edges.length - 1];
  const bins = data.images.length;
  const held = data.calibration.reduce((sum, count) => sum + count, 0);
  // The outline has the area of the bars of normal images, so that the two shapes can be compared.
  const likened = data.normal || data.scored;
  const outline = data.calibration.map((count) => (count * likened) / held);
  let plot = { left: 0, width: 1, height: 1 };
  let split = null; // the clip that divides golden from grey bars
  let line = null; // the threshold itself: part of the drawing, so that it is printed
  const shown = threshold ?? (data.threshold === null ? null : { origin: data.threshold, value: data.threshold });
  const handle = threshold ? createHandle(box, threshold, () => plot) : null;

  const share = (score) => clamp((score - low) / (high - low), 0, 1);

  function draw() {
    const width = Math.max(box.clientWidth, 240);
    const height = box.clientHeight;
    plot = { left: MARGIN.left, width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
    const most = Math.max(...data.images, ...outline, 1);
    const level = stretch.checked ? (count) => Math.log1p(count) / Math.log1p(most) : (count) => count / most;
    const x = (score) => plot.left + share(score) * plot.width;
    const y = (count) => MARGIN.top + plot.height * (1 - level(count));
    const edge = (i) => plot.left + (i / bins) * plot.width;

    const bars = (kind, clip) => drawing('g', { class: kind, 'clip-path': clip }, ...data.images.map((count, i) => (count
      ? drawing('rect', { x: edge(i) + 0.5, y: y(count), width: Math.max(plot.width / bins - 1, 0.5), height: MARGIN.top + plot.height - y(count) })
      : null)));
    const svg = drawing('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': summary() });
    const countTicks = stretch.checked ? [1, 10, 100, 1e3, 1e4, 1e5, 1e6].filter((count) => count <= most) : ticks(0, most, 4).values.filter(Number.isInteger);
    for (const count of countTicks) {
      svg.append(drawing('path', { class: 'grid', d: `M${plot.left} ${y(count)}h${plot.width}` }),
        drawing('text', { class: 'tick', x: plot.left - 8, y: y(count) + 4, 'text-anchor': 'end' }, grouped.format(count)));
    }
    split = drawing('rect', { y: 0, height });
    svg.append(drawing('clipPath', { id: 'abnormal-part' }, split), bars('bars-normal', null));
    if (shown) svg.append(bars('bars-abnormal', 'url(#abnormal-part)'));
    if (held) {
      const steps = outline.map((count, i) => `L${edge(i)} ${y(count)}L${edge(i + 1)} ${y(count)}`).join('');
      svg.append(drawing('path', { class: 'bars-calibration', d: `M${edge(0)} ${y(0)}${steps}L${edge(bins)} ${y(0)}` }));
    }
    svg.append(drawing('path', { class: 'grid', d: `M${plot.left} ${y(0)}h${plot.width}` }));
    const across = ticks(low, high, clamp(plot.width / 75, 4, 10));
    for (const score of across.values) {
      svg.append(drawing('text', { class: 'tick', x: x(score), y: height - 26, 'text-anchor': 'middle' }, score.toFixed(across.digits).replace('-', MINUS)));
    }
    svg.append(drawing('text', { class: 'axis', x: plot.left + plot.width / 2, y: height - 4, 'text-anchor': 'middle' }, 'score (higher = more abnormal)'),
      drawing('text', { class: 'axis', transform: `translate(11 ${MARGIN.top + plot.height / 2}) rotate(-90)`, 'text-anchor': 'middle' }, 'images'));
    if (shown) {
      line = drawing('path', { class: 'threshold-line', d: `M0 ${MARGIN.top}v${plot.height}` });
      svg.append(drawing('path', { class: 'threshold-origin', d: `M${x(shown.origin)} ${MARGIN.top}v${plot.height}` }), line);
    }
    svg.append(...data.images.map((count, i) => drawing('rect', { class: 'bars-touch', x: edge(i), y: MARGIN.top, width: plot.width / bins, height: plot.height, 'data-tip': say(count, i) })));
    box.querySelector('svg')?.remove();
    box.prepend(svg);
    move();
  }

  /** What a bin holds, in words. */
  function say(count, i) {
    const from = i === 0 && data.below ? `up to ${formatNumber(data.edges[1])}` : `${formatNumber(data.edges[i])} to ${formatNumber(data.edges[i + 1])}`;
    const range = i === bins - 1 && data.beyond ? `${formatNumber(data.edges[i])} and more` : from;
    return `Score ${range}: ${formatCount(count, 'image')}${held ? `, ${formatCount(data.calibration[i], 'calibration image')}` : ''}`;
  }

  function summary() {
    return `Histogram of ${formatCount(data.scored, 'score')} from ${formatNumber(low)} to ${formatNumber(high)}${held ? `, with ${held} calibration scores outlined` : ''}`;
  }

  /** Follow the threshold without drawing anew. */
  function move() {
    if (!shown) return;
    const left = plot.left + share(shown.value) * plot.width;
    line.setAttribute('transform', `translate(${left} 0)`);
    split.setAttribute('x', left);
    split.setAttribute('width', Math.max(plot.left + plot.width - left, 0));
    if (!threshold) return;
    handle.style.setProperty('left', `${(100 * left) / (plot.left + plot.width + MARGIN.right)}%`);
    handle.style.setProperty('top', `${MARGIN.top}px`);
    handle.style.setProperty('height', `${plot.height}px`);
    handle.setAttribute('aria-valuenow', String(threshold.value));
    const rate = threshold.rate();
    handle.setAttribute('aria-valuetext', `score ${formatNumber(threshold.value)}: ${formatCount(threshold.abnormal(), 'abnormal image')}${rate === null ? '' : `, false-alarm rate ${formatAsked(rate)}`}`);
  }

  const key = (kind, text) => element('span', {}, element('i', { class: `swatch ${kind}` }), text);
  box.after(element('div', { class: 'legend' },
    key('', shown ? 'normal images' : 'images'),
    shown ? key('swatch-abnormal', shown === threshold ? 'abnormal images' : `abnormal images, above the threshold ${formatNumber(shown.value)}`) : null,
    held ? key('swatch-calibration', `${held} calibration images${held === likened ? '' : `, scaled to the ${formatCount(likened, data.normal ? 'normal image' : 'image')}`}`) : null,
    data.below + data.beyond ? element('span', {}, `${formatCount(data.below + data.beyond, 'image')} beyond the axis, counted in its end bars`) : null));
  stretch.addEventListener('change', draw);
  new ResizeObserver(draw).observe(box);
  threshold?.subscribe(move);
  draw();
}

/** The golden line: a slider for the mouse, for touch and for the keyboard. */
function createHandle(box, threshold, plot) {
  const { low, high } = threshold.axis;
  const handle = element('div', {
    class: 'threshold', id: 'threshold', role: 'slider', tabindex: '0', 'aria-label': 'Threshold', 'aria-orientation': 'horizontal',
    'aria-valuemin': String(low), 'aria-valuemax': String(high),
  });
  box.append(handle);
  const follow = (event) => {
    const { left, width } = plot();
    threshold.set(low + ((event.clientX - box.getBoundingClientRect().left - left) / width) * (high - low));
  };
  handle.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    handle.focus({ preventScroll: true });
    handle.setPointerCapture(event.pointerId);
  });
  handle.addEventListener('pointermove', (event) => {
    if (handle.hasPointerCapture(event.pointerId)) follow(event);
  });
  handle.addEventListener('keydown', (event) => {
    const arrow = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    const page = { PageUp: 1, PageDown: -1 }[event.key];
    if (page || (arrow && event.shiftKey)) threshold.page(page ?? arrow);
    else if (arrow) threshold.step(arrow);
    else if (event.key === 'Home') threshold.set(low);
    else if (event.key === 'End') threshold.set(high);
    else return;
    event.preventDefault();
  });
  return handle;
}
