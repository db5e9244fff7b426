// Every file in a table that stays quick with 100,000 rows: sorting makes an index, and only rows in view are drawn.

const ROW_HEIGHT = 36; // of `.rows td` in results.css
const SPARE_ROWS = 12; // drawn beyond each end of the view
const PRINTED_ROWS = 100;
const LEAST_WIDTHS = { name: 260, output: 160 }; // pixels
const VERDICT_ORDER = ['abnormal', 'normal', 'unjudged', 'failed'];

const smaller = (a, b) => Math.min(a, b);
const larger = (a, b) => Math.max(a, b);
const sizeText = (width, height) => `${width} \u00d7 ${height}`;

function startTable(rows, threshold, gallery) {
  const root = byId('table');
  const search = byId('table-search');
  const filter = byId('table-verdict');
  const judged = rows.counts[0] + rows.counts[1] > 0;
  const columns = [
    { key: 'name', label: 'File', tip: 'Path inside the folder.', className: 'col-name left' },
    rows.score
      ? { key: 'verdict', label: 'Verdict', tip: 'Abnormal: the score is higher than the threshold.', className: 'left' }
      : { key: 'verdict', label: 'Result', tip: 'Why a file failed is in the list of failed files.', className: 'left' },
    { key: 'label', label: 'Class', tip: 'The class that the model finds most likely. Of an abnormal image: the nearest one; it is rejected.', className: 'left' },
    { key: 'label_probability', label: 'Probability', tip: 'Of that class among the known ones.', digits: 3 },
    { key: 'score', label: 'Score', tip: 'Score: higher = more abnormal.', digits: 4 },
    { key: 'p_value', label: 'p-value', tip: 'Share of normal images at least this unusual. Small = abnormal.', digits: 2 },
    { key: 'bits_per_dim', label: 'Bits/dim', className: 'col-fine', tip: '\u2212ELBO over dimensions, in bits. Lower = more likely.', digits: 4 },
    { key: 'elbo', label: 'ELBO', unit: 'nats', className: 'col-fine', tip: 'Bound on the log-likelihood, in nats. Higher = more likely.', digits: 4 },
    { key: 'rate', label: 'Rate', unit: 'nats', className: 'col-fine', tip: 'What the latent code costs, in nats.', digits: 4 },
    { key: 'distortion', label: 'Distortion', unit: 'nats', tip: 'What the reconstruction leaves unexplained, in nats.', digits: 4, className: 'col-fine' },
    { key: 'error_bar', label: 'Error bar', unit: rows.errorUnit, tip: 'Predicted standard deviation, mean over the image. Higher = less sure.', digits: 3 },
    { key: 'psnr', label: 'PSNR', unit: 'dB', tip: 'Against the clean image. Higher = closer to it.', digits: 4 },
    { key: 'input_psnr', label: 'PSNR before', unit: 'dB', tip: 'Of the image itself against the clean image.', digits: 4, className: 'col-fine' },
    { key: 'ssim', label: 'SSIM', tip: 'Against the clean image. 1 = the same.', digits: 4 },
    { key: 'input_ssim', label: 'SSIM before', tip: 'Of the image itself against the clean image.', digits: 4, className: 'col-fine' },
    { key: 'dice', label: 'Dice', tip: 'Against the true labels. 1 = the same.', digits: 4 },
    { key: 'iou', label: 'IoU', tip: 'Against the true labels. 1 = the same.', digits: 4 },
    { key: 'size', label: 'Size', unit: 'px', tip: 'Width \u00d7 height, in pixels.' },
    { key: 'output', label: 'Written to', tip: 'Path inside the output folder.', className: 'col-fine left' },
  ].filter((column) => !(column.key in rows) || rows[column.key] !== null)
    .filter((column) => !column.key.startsWith('label') || rows.labels)
    .filter((column) => column.key !== 'verdict' || judged || rows.counts[2] > 0);

  const classRank = rows.labels ? rows.labels.map((name) => rows.labels.filter((other) => compareText(other, name) < 0).length) : [];
  const verdict = (row) => verdictOf(rows, threshold, row);
  let lowered = null; // paths in lower case, made at the first search
  let sorted = Uint32Array.from({ length: rows.length }, (_, row) => row);
  let sort = { key: rows.score ? 'score' : 'error_bar', descending: true };
  let shown = sorted;

  const head = element('tr', {}, ...columns.map((column) => {
    column.head = element('th', { scope: 'col', class: column.className ?? null },
      element('button', { type: 'button', 'data-tip': column.tip, click: () => sortBy(column) }, column.label, column.unit ? element('small', {}, ` ${column.unit}`) : null));
    return column.head;
  }));
  const above = spacer();
  const below = spacer();
  const body = element('tbody');
  const table = element('table', { 'aria-label': 'All files' }, element('thead', {}, head), body);
  const view = element('div', { class: 'rows', tabindex: '0', role: 'region', 'aria-label': 'All files, scrolls' }, table);
  const status = element('p', { class: 'rows-status', id: 'table-status', role: 'status' });
  root.append(view, status);
  layOut();

  function spacer() {
    const cell = element('td', { colspan: columns.length });
    return { row: element('tr', { class: 'spacer', 'aria-hidden': 'true' }, cell), set: (rowsAway) => cell.style.setProperty('height', `${rowsAway * ROW_HEIGHT}px`) };
  }

  // Columns are as wide as the longest figure in them, of all rows and not of those in view: nothing is cut, and
  // nothing moves while the reader scrolls. File names take the rest.

  function layOut() {
    table.classList.add('measuring');
    body.replaceChildren(element('tr', {}, ...columns.map((column) => element('td', { class: column.className ?? null }, longest(column)))));
    const widths = columns.map((column) => Math.ceil(column.head.getBoundingClientRect().width));
    table.classList.remove('measuring');
    columns.forEach((column, i) => {
      if (column.key in LEAST_WIDTHS) widths[i] = LEAST_WIDTHS[column.key];
      else column.head.style.setProperty('width', `${widths[i]}px`);
    });
    table.style.setProperty('min-width', `${widths.reduce((sum, width) => sum + width)}px`);
  }

  /** The longest content of a column: that of an extreme, or of a common figure. */
  function longest(column) {
    if (column.key in LEAST_WIDTHS) return '';
    if (column.key === 'verdict') return rows.counts[3] ? badge('unjudged', rows.done) : badge('abnormal');
    if (column.key === 'label') return rows.labels.reduce((one, other) => (other.length > one.length ? other : one));
    if (column.key === 'size') return sizeText(rows.width.reduce(larger, 0), rows.height.reduce(larger, 0));
    const finite = rows[column.key].filter(Number.isFinite);
    const figures = [finite.reduce(smaller, Infinity), finite.reduce(larger, -Infinity), 1e-5, -0.1234];
    return figures.map((figure) => formatNumber(figure, column.digits)).reduce((one, other) => (other.length > one.length ? other : one));
  }

  // Sorting. Rows without the figure come last both ways; equal rows keep the order of falling score.

  function sortBy(column) {
    const descending = sort.key === column.key ? !sort.descending : !['name', 'output', 'verdict', 'label', 'p_value'].includes(column.key);
    sort = { key: column.key, descending };
    order();
    apply();
  }

  function order() {
    const sign = sort.descending ? -1 : 1;
    const index = Array.from({ length: rows.length }, (_, row) => row);
    if (sort.key === 'name' || sort.key === 'output') {
      const paths = sort.key === 'name' ? index.map(rows.path) : rows.output;
      index.sort((a, b) => sign * compareText(paths[a], paths[b]));
    } else {
      const values = figures(sort.key);
      index.sort((a, b) => {
        if (Number.isNaN(values[a]) || Number.isNaN(values[b])) return Number.isNaN(values[a]) - Number.isNaN(values[b]);
        return sign * (values[a] - values[b]) || a - b;
      });
    }
    sorted = Uint32Array.from(index);
  }

  function figures(key) {
    if (key === 'label') return Float64Array.from(rows.label, (label) => (label ? classRank[label] : NaN));
    if (key === 'size') return Float64Array.from(rows.width, (width, row) => width * rows.height[row]);
    if (key === 'verdict') return Float64Array.from(rows.verdict, (_, row) => VERDICT_ORDER.indexOf(verdict(row)));
    return rows[key];
  }

  // Choosing rows.

  function apply() {
    const text = search.value.trim().toLowerCase();
    const kind = filter.value;
    if (text && !lowered) lowered = Array.from({ length: rows.length }, (_, row) => rows.path(row).toLowerCase());
    shown = text || kind !== 'all' ? sorted.filter((row) => (!text || lowered[row].includes(text)) && (kind === 'all' || verdict(row) === kind)) : sorted;
    for (const column of columns) {
      if (column.key === sort.key) column.head.setAttribute('aria-sort', sort.descending ? 'descending' : 'ascending');
      else column.head.removeAttribute('aria-sort');
    }
    status.textContent = shown.length === rows.length ? formatCount(rows.length, 'file') : `${grouped.format(shown.length)} of ${formatCount(rows.length, 'file')}`;
    table.setAttribute('aria-rowcount', String(shown.length + 1));
    view.scrollTop = 0;
    draw();
  }

  // Drawing.

  function draw() {
    const first = clamp(Math.floor(view.scrollTop / ROW_HEIGHT) - SPARE_ROWS, 0, shown.length);
    drawRows(first, clamp(first + Math.ceil(view.clientHeight / ROW_HEIGHT) + 2 * SPARE_ROWS, 0, shown.length));
  }

  function drawRows(first, last) {
    above.set(first);
    below.set(shown.length - last);
    const drawn = Array.from(shown.subarray(first, last), (row, i) => element('tr', { 'aria-rowindex': first + i + 2 }, ...columns.map((column) => cell(row, column))));
    if (!shown.length) drawn.push(element('tr', {}, element('td', { colspan: columns.length, class: 'left' }, 'No file matches.')));
    body.replaceChildren(above.row, ...drawn, below.row);
  }

  function cell(row, column) {
    if (column.key === 'name') {
      const path = rows.path(row);
      const label = [element('span', { class: 'folder' }, rows.folders[rows.folder[row]]), rows.names[row]];
      const note = rows.note(row);
      return element('td', { class: 'left name', title: note ? `${path}\n${note}` : path },
        element('div', { class: 'file' },
          gallery?.has(path) ? element('button', { type: 'button', class: 'open', click: () => gallery.show(path) }, ...label) : element('span', {}, ...label),
          note ? element('span', { class: 'note', tabindex: '0', 'data-tip': note }, 'note') : null));
    }
    if (column.key === 'verdict') return element('td', { class: 'left' }, rows.verdict[row] === 3 ? badge('unjudged', rows.done) : badge(verdict(row)));
    if (column.key === 'size') return element('td', {}, rows.width[row] ? sizeText(rows.width[row], rows.height[row]) : DASH);
    if (column.key === 'output') return element('td', { class: column.className, title: rows.output[row] }, rows.output[row] || DASH);
    if (column.key === 'label') return element('td', { class: 'left' }, rows.labels[rows.label[row]] || DASH);
    return element('td', { class: column.className ?? null }, formatNumber(rows[column.key][row], column.digits));
  }

  view.addEventListener('scroll', draw, { passive: true });
  search.addEventListener('input', apply);
  filter.addEventListener('change', apply);
  new ResizeObserver(draw).observe(view);
  threshold?.subscribe(() => {
    if (filter.value === 'abnormal' || filter.value === 'normal') apply();
    else if (sort.key === 'verdict') { order(); apply(); } else draw();
  });
  // Paper has no scroll bar: print the head of the list as it is sorted and filtered now.
  addEventListener('beforeprint', () => {
    drawRows(0, Math.min(PRINTED_ROWS, shown.length));
    below.set(0);
    if (shown.length > PRINTED_ROWS) status.textContent = `The first ${PRINTED_ROWS} of ${formatCount(shown.length, 'file')}`;
  });
  addEventListener('afterprint', apply);
  apply();
}
