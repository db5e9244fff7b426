// The threshold that the reader can move, and everything that follows from it.
// An image is abnormal when its score is higher than the threshold, as in the run itself.

/**
 * @param {object} rows what readRows returned
 * @param {object | null} settings the block "threshold"; null where the run has no verdicts
 * @param {{low: number, high: number}} axis how far the threshold can be moved
 */
function createThreshold(rows, settings, axis) {
  const origin = settings.value;
  const { n } = settings; // calibration images
  const held = unpack(settings.calibration, 'f8'); // distinct calibration scores, falling
  const heldAbove = unpack(settings.calibrationAbove, 'u4'); // calibration scores above each of them
  const imagesAbove = unpack(settings.above, 'u4'); // images above each of them, of the whole run
  const listeners = [];
  let value = origin;

  /** Index of the largest calibration score that is not above `x`; held.length if all are. */
  const rank = (x) => firstWhere(held.length, (i) => held[i] <= x);
  const allShown = rows.length === rows.total;
  const lowestShown = rows.scored ? rows.score[rows.scored - 1] : axis.low;

  // Below the highest calibration score only calibration scores are thresholds, as on the command line: a value between
  // two of them gives no other rate. Above it there is no rate to ask for, and every value can be tried.
  function snap(x) {
    const wanted = clamp(x, axis.low, axis.high);
    const low = rank(wanted);
    if (low === 0 || held.length === 0) return allShown ? wanted : Math.max(wanted, lowestShown);
    if (low === held.length) return held[low - 1];
    return held[low - 1] - wanted < wanted - held[low] ? held[low - 1] : held[low];
  }

  /** The threshold `by` calibration scores away; above the highest one, by hundredths of the axis. */
  function stepped(by) {
    const free = value + (by * (axis.high - axis.low)) / 100;
    if (!held.length) return snap(free);
    const at = rank(value);
    if (at === 0 && (by > 0 || value > held[0])) return snap(Math.max(free, held[0]));
    const between = held[at] !== value; // then the next lower one is a step away already
    return held[clamp(at - by - (between && by < 0 ? 1 : 0), 0, held.length - 1)];
  }

  /** How many calibration scores a large step is. */
  const page = Math.max(10, Math.round(held.length / 20));

  const threshold = {
    origin, n,
    proved: settings.proved, // whether the rate holds; else it is only asked
    isWhat: settings.isWhat, // what the rate is, in a word
    get value() { return value; },
    get moved() { return value !== origin; },
    axis,

    /** Whether a row is abnormal; where the threshold was not moved, what the run itself said. */
    isAbnormal: (row) => (value === origin ? rows.verdict[row] === 1 : rows.score[row] > value),
    exceeds: (score) => score !== null && score > value,

    /** Abnormal images of the whole run. */
    abnormal() {
      if (value === origin) return rows.counts[1];
      const at = rank(value);
      if (at < held.length && held[at] === value) return imagesAbove[at];
      return firstWhere(rows.scored, (row) => rows.score[row] <= value);
    },

    /** The false-alarm rate of this threshold: at most, where it is proved; null without calibration scores. */
    rate() {
      if (!n) return null;
      const at = rank(value);
      return (1 + (at < held.length ? heldAbove[at] : n)) / (n + 1);
    },

    /** The --false-alarms value that gives the same verdicts; null where there is none. */
    option() {
      if (value === origin && settings.falseAlarms !== null) return String(settings.falseAlarms);
      const at = rank(value);
      if (!n || at === held.length || held[at] !== value) return null;
      // Rounded up by 2 % at most, and to less than the next rate that n images can tell apart: the command then
      // computes floor(rate * (n + 1)) and comes to the same calibration score.
      const count = heldAbove[at] + 1;
      const exact = count / (n + 1);
      for (let digits = 1; digits < 15; digits += 1) {
        const candidate = Math.ceil(exact * 10 ** digits) / 10 ** digits;
        if (candidate <= 1.02 * exact && Math.floor(candidate * (n + 1)) === count) return String(candidate);
      }
      return String(exact);
    },

    set(x) { change(snap(x)); },
    step(by) { change(stepped(by)); },
    page(by) { change(stepped(by * (held.length ? page : 10))); },
    reset() { change(origin); },
    subscribe(listener) { listeners.push(listener); },
  };

  function change(to) {
    if (to === value) return;
    value = to;
    for (const listener of listeners) listener();
  }

  return threshold;
}
