// Starts the page of `kintsugi score` and keeps its figures in step with the threshold.

function startScorePage() {
  const rows = readRows();
  const histogram = readData('histogram');
  const settings = readData('threshold');
  const axis = histogram && { low: histogram.edges[0], high: histogram.edges[histogram.edges.length - 1] };
  const threshold = settings && createThreshold(rows, settings, axis);
  if (histogram) startHistogram(histogram, threshold);
  const worst = readData('gallery');
  const gallery = worst.pictures.length ? startGallery(worst, rows, threshold) : null;
  startTable(rows, threshold, gallery);
  if (threshold) startExploring(rows, threshold);
  startPage();
}

/** Counts, rate and command-line option for the threshold as it stands. */
function startExploring(rows, threshold) {
  const bar = element('div', { class: 'exploring', hidden: true });
  const barText = element('p');
  const reset = () => threshold.reset();
  bar.append(barText, element('button', { type: 'button', class: 'button', click: reset }, 'Reset'));
  document.body.append(bar);
  // The bar says what the panel says, for as long as the panel is out of sight.
  let panelInView = false;
  new IntersectionObserver((entries) => {
    panelInView = entries[entries.length - 1].isIntersecting;
    bar.hidden = panelInView || !threshold.moved;
  }).observe(byId('threshold-value'));
  byId('threshold-reset').addEventListener('click', reset);

  function refresh() {
    const { moved } = threshold;
    const abnormal = threshold.abnormal();
    const normal = rows.counts[0] + rows.counts[1] - abnormal;
    const rate = threshold.rate();
    const option = threshold.option();
    byId('count-abnormal').textContent = grouped.format(abnormal);
    byId('count-normal').textContent = grouped.format(normal);
    byId('count-abnormal-note').textContent = moved ? `in the run: ${grouped.format(rows.counts[1])}` : `score above ${formatNumber(threshold.value)}`;
    byId('count-normal-note').textContent = moved ? `in the run: ${grouped.format(rows.counts[0])}` : `score up to ${formatNumber(threshold.value)}`;
    byId('threshold-value').textContent = formatNumber(threshold.value);
    byId('threshold-rate').textContent = rate === null ? DASH : `${threshold.proved ? `\u2264${NBSP}` : ''}${formatAsked(rate)}`;
    byId('threshold-option').textContent = option === null ? 'none' : `--false-alarms ${option}`;
    byId('threshold-copy').hidden = option === null;
    byId('threshold-note').textContent = explain(threshold, rate, option);
    byId('threshold-reset').disabled = !moved;
    bar.hidden = panelInView || !moved;
    barText.textContent = `Exploring: threshold ${formatNumber(threshold.value)}, ${grouped.format(abnormal)} abnormal${rate === null ? '' : `, false alarms ${threshold.proved ? 'at most' : 'asked'} ${formatAsked(rate)}`}`;
  }

  threshold.subscribe(refresh);
  refresh();
}

function explain(threshold, rate, option) {
  if (rate === null) return 'The calibration scores of this run are not in the folder, so no false-alarm rate can be given.';
  const above = Math.round(rate * (threshold.n + 1)) - 1;
  const ground = `${above === 0 ? 'None' : grouped.format(above)} of ${formatCount(threshold.n, 'calibration image')} ${above > 1 ? 'score' : 'scores'} higher`;
  if (option === null) {
    return `${ground}. No --false-alarms value gives this threshold: with ${formatCount(threshold.n, 'calibration image')}, ${formatAsked(1 / (threshold.n + 1))} is the smallest rate that can be ${threshold.isWhat}.`;
  }
  if (!threshold.moved) {
    const asked = Number(option);
    const text = `${ground}: this is where the run put the threshold for ${threshold.proved ? 'at most ' : ''}${formatAsked(asked)} false alarms, as ${threshold.isWhat}.`;
    if (formatAsked(rate) === formatAsked(asked)) return text;
    return `${text} ${formatCount(threshold.n, 'calibration image')} can only tell rates apart in steps of ${formatAsked(1 / (threshold.n + 1))}, so the next possible rate below, ${formatAsked(rate)}, is used.`;
  }
  return `${ground}. To have these verdicts in the files, run the command again with --false-alarms ${option}.`;
}

startScorePage();
