// The worst images with their heat maps, and the lightbox that compares the two.

const FIRST_TILES = 24;

/**
 * @param {{pictures: object[], good: string[]}} data the worst images, and thumbnails of good images that they are close to
 * @returns {{show: (path: string) => void, has: (path: string) => boolean}}
 */
function startGallery({ pictures, good }, rows, threshold) {
  const root = document.documentElement;
  const grid = byId('gallery-grid');
  const rowOf = new Map();
  const wanted = new Set(pictures.map((picture) => picture.path));
  for (let row = 0; row < rows.length; row += 1) {
    const path = rows.path(row);
    if (wanted.has(path)) rowOf.set(path, row);
  }
  const photo = (picture, alt) => embedded('jpeg', picture.thumbnail, { alt });
  const heat = (picture) => embedded('png', picture.heatmap, { class: 'heat' });
  // A white line within a dark one, which keep their width when the picture is enlarged.
  const outlines = ({ outlines: d, size }) => (d && size ? drawing('svg', { class: 'outlines', viewBox: `0 0 ${size[0]} ${size[1]}`, 'aria-hidden': 'true' },
    drawing('path', { class: 'outline-casing', d }), drawing('path', { class: 'outline-line', d })) : null);
  const items = pictures.map((picture) => ({ picture, row: rowOf.get(picture.path) ?? null, badge: null, tile: null }));
  let shown = [];
  let flaggedOnly = false;
  let all = pictures.length <= FIRST_TILES + 6; // a button for a handful of pictures is not worth it

  // A picture without a row (the gallery of a killed run can be ahead of its rows) is judged by its own score.
  const verdict = (item) => {
    if (item.row !== null) return verdictOf(rows, threshold, item.row);
    return threshold ? VERDICTS[Number(threshold.exceeds(item.picture.score))] : 'unjudged';
  };

  /** The closest good images: thumbnails with their names. */
  function closest({ near }) {
    if (!near.length) return null;
    return element('span', { class: 'near' },
      element('span', { class: 'near-title' }, 'Closest good images'),
      element('span', { class: 'near-row' }, ...near.map(({ name, distance, thumbnail }) => element('span', { class: 'near-image', title: `${name}: ${formatNumber(distance, 2)} standard deviations away in latent space` },
        element('span', { class: 'near-picture' }, embedded('jpeg', good[thumbnail])),
        element('span', { class: 'near-name' }, name.slice(name.lastIndexOf('/') + 1)),
        element('span', { class: 'near-distance' }, `distance ${formatNumber(distance, 2)}`)))));
  }

  const lightbox = createLightbox({
    controls: pictures.some((picture) => picture.heatmap) ? [element('label', {}, 'Heat map', opacitySlider())] : [],
    title: (item) => item.picture.path,
    view(item) {
      const image = photo(item.picture, `Image ${item.picture.path}`);
      return createCompare({ before: [image], after: item.picture.heatmap ? [photo(item.picture, ''), heat(item.picture), verdict(item) === 'abnormal' ? outlines(item.picture) : null].filter(Boolean) : [], beforeLabel: 'image', afterLabel: 'heat map' });
    },
    beside: (item) => closest(item.picture),
    details(item) {
      const fact = (label, value) => element('span', {}, `${label} `, element('strong', {}, value));
      const p = item.row !== null && rows.p_value ? rows.p_value[item.row] : null;
      return [
        verdict(item) === 'unjudged' ? null : badge(verdict(item)),
        fact('score', formatNumber(item.picture.score)),
        p !== null && Number.isFinite(p) ? fact('p-value', formatNumber(p, 2)) : null,
        item.row !== null ? fact('size', `${rows.width[item.row]} \u00d7 ${rows.height[item.row]}`) : null,
        item.row !== null && rows.note(item.row) ? element('span', {}, rows.note(item.row)) : null,
        ...(verdict(item) === 'abnormal' ? item.picture.words : []).map((words) => element('span', {}, words)),
        item.picture.map ? element('span', {}, 'full-size map: ', element('code', {}, item.picture.map)) : null,
      ].filter(Boolean);
    },
  });

  for (const item of items) {
    const { picture } = item;
    item.badge = element('span', { class: 'badge' });
    item.tile = element('button', { type: 'button', class: 'tile', title: picture.path, click: () => lightbox.open(shown, shown.indexOf(item)) },
      element('span', { class: 'tile-picture' }, photo(picture, ''), picture.heatmap ? heat(picture) : null, outlines(picture)),
      element('span', { class: 'tile-text' },
        element('span', { class: 'tile-name' }, picture.path.slice(picture.path.lastIndexOf('/') + 1)),
        element('span', { class: 'tile-line' }, formatNumber(picture.score), item.badge),
        picture.words.length || picture.near.length
          ? element('span', { class: 'tile-more' }, ...picture.words.map((words) => element('span', { class: 'tile-words' }, words)), closest(picture))
          : null));
  }

  const more = byId('gallery-more');
  more.addEventListener('click', () => { all = true; arrange(); });

  /** Choose and order the tiles. */
  function arrange() {
    const byName = byId('gallery-sort').value === 'name';
    shown = items.filter((item) => !flaggedOnly || verdict(item) === 'abnormal');
    shown.sort((a, b) => (byName ? compareText(a.picture.path, b.picture.path) : (b.picture.score ?? -Infinity) - (a.picture.score ?? -Infinity)));
    grid.replaceChildren(...(all ? shown : shown.slice(0, FIRST_TILES)).map((item) => item.tile));
    more.hidden = all || shown.length <= FIRST_TILES;
    more.textContent = `Show all ${shown.length}`;
    byId('gallery-empty').hidden = shown.length > 0;
  }

  function refresh() {
    for (const item of items) {
      const kind = verdict(item);
      item.badge.textContent = kind === 'unjudged' ? '' : kind;
      item.tile.classList.toggle('tile-abnormal', kind === 'abnormal');
      item.badge.className = kind === 'unjudged' ? '' : `badge badge-${kind}`;
    }
    if (flaggedOnly) arrange();
    lightbox.refresh();
  }

  function opacitySlider() {
    return element('input', { type: 'range', min: '0', max: '100', step: '5', value: '70', class: 'opacity', 'aria-label': 'Heat map opacity, percent' });
  }

  // Both opacity sliders, on the page and in the lightbox, are one.
  document.addEventListener('input', (event) => {
    if (event.target.id !== 'gallery-opacity' && !event.target.classList.contains('opacity')) return;
    root.style.setProperty('--overlay', String(event.target.value / 100));
    for (const slider of document.querySelectorAll('#gallery-opacity, .opacity')) slider.value = event.target.value;
  });
  byId('gallery-sort').addEventListener('change', arrange);
  for (const [id, only] of [['gallery-all', false], ['gallery-flagged', true]]) {
    byId(id)?.addEventListener('click', () => {
      flaggedOnly = only;
      byId('gallery-all').setAttribute('aria-pressed', String(!only));
      byId('gallery-flagged').setAttribute('aria-pressed', String(only));
      arrange();
    });
  }
  threshold?.subscribe(refresh);
  refresh();
  arrange();
  const index = new Map(items.map((item) => [item.picture.path, item]));
  return {
    has: (path) => index.has(path),
    show: (path) => lightbox.open([index.get(path)], 0),
  };
}
