// The rows of the page, and what each is called.

const VERDICTS = ['normal', 'abnormal', 'failed', 'unjudged'];
const FIGURES = ['p_value', 'bits_per_dim', 'elbo', 'rate', 'distortion', 'label_probability', 'error_bar', 'psnr', 'ssim', 'dice', 'iou', 'input_psnr', 'input_ssim'];

/** The rows as columns; row 0 has the highest score or the widest error bar, rows without one come last. */
function readRows() {
  const data = readData('rows');
  const rows = {
    total: data.total, counts: data.counts, names: data.names, folders: data.folders, length: data.names.length,
    folder: unpack(data.folder, 'u4'), verdict: unpack(data.verdict, 'u1'), score: data.score && unpack(data.score, 'f8'),
    width: unpack(data.width, 'u4'), height: unpack(data.height, 'u4'),
    labels: data.labels ?? null, label: data.label ? unpack(data.label, 'u4') : null, // classes, where the model tells them
    output: data.outputs ?? null, done: data.done ?? 'no verdict', errorUnit: data.error_unit ?? null,
  };
  for (const name of FIGURES) rows[name] = data[name] ? unpack(data[name], 'f4') : null;
  const note = data.note && unpack(data.note, 'u4');
  rows.note = (row) => (note ? data.notes[note[row]] : ''); // such as what was converted to suit the model
  rows.path = (row) => rows.folders[rows.folder[row]] + rows.names[row];
  const ranked = rows.score ?? rows.error_bar;
  rows.scored = firstWhere(rows.length, (row) => Number.isNaN(ranked[row]));
  return rows;
}

/** What a row is called: by the threshold where there is one to move, else as the run said. */
function verdictOf(rows, threshold, row) {
  const code = rows.verdict[row];
  return VERDICTS[threshold && code < 2 ? Number(threshold.isAbnormal(row)) : code];
}

/** The first index for which a test holds that stays true from there on; `length` if there is none. */
function firstWhere(length, test) {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (test(middle)) high = middle; else low = middle + 1;
  }
  return low;
}
