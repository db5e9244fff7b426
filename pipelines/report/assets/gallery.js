// The worst images with their heat maps, and the lightbox that compares the two.

const FIRST_TILES = 24;

/** @returns {{show: (path: string) => void, has: (path: string) => boolean}} */
function startGallery(pictures, rows, threshold) {
  const root = document.documentElement;
  const grid = byId('gallery-grid');
  const rowOf = new Map();
  const wanted = new Set(pictures.map((picture) => picture.path));
  for (let row = 0; row < rows.length; row += 1) {
    const path = rows.path(row);
    if (wanted.has(path)) rowOf.set(path, row);
  }
  const source = (kind, data) => `data:image/${kind};base64,${data}`;
  const photo = (picture, alt) => element('img', { src: source('jpeg', picture.thumbnail), alt, draggable: 'false' });
  const heat = (picture) => element('img', { src: source('png', picture.heatmap), alt: '', class: 'heat', draggable: 'false' });
  const items = pictures.map((picture) => ({ picture, row: rowOf.get(picture.path) ?? null, badge: null, tile: null }));
  let shown = [];
  let flaggedOnly = false;
  let all = pictures.length <= FIRST_TILES + 6; // a button for a handful of pictures is not worth it

  // A picture without a row (the gallery of a killed run can be ahead of its rows) is judged by its own score.
  const verdict = (item) => {
    if (item.row !== null) return verdictOf(rows, threshold, item.row);
    return threshold ? VERDICTS[Number(threshold.exceeds(item.picture.score))] : 'unjudged';
  };

  const lightbox = createLightbox({
    controls: [element('label', {}, 'Heat map', opacitySlider())],
    title: (item) => item.picture.path,
    view(item) {
      const image = photo(item.picture, `Image ${item.picture.path}`);
      return createCompare({ before: [image], after: item.picture.heatmap ? [photo(item.picture, ''), heat(item.picture)] : [], beforeLabel: 'image', afterLabel: 'heat map' });
    },
    details(item) {
      const fact = (label, value) => element('span', {}, `${label} `, element('strong', {}, value));
      const p = item.row !== null && rows.p_value ? rows.p_value[item.row] : null;
      return [
        verdict(item) === 'unjudged' ? null : badge(verdict(item)),
        fact('score', formatNumber(item.picture.score)),
        p !== null && Number.isFinite(p) ? fact('p-value', formatNumber(p, 2)) : null,
        item.row !== null ? fact('size', `${rows.width[item.row]} \u00d7 ${rows.height[item.row]}`) : null,
        item.row !== null && rows.note(item.row) ? element('span', {}, rows.note(item.row)) : null,
        item.picture.map ? element('span', {}, 'full-size map: ', element('code', {}, item.picture.map)) : null,
      ].filter(Boolean);
    },
  });

  for (const item of items) {
    const { picture } = item;
    item.badge = element('span', { class: 'badge' });
    item.tile = element('button', { type: 'button', class: 'tile', title: picture.path, click: () => lightbox.open(shown, shown.indexOf(item)) },
      element('span', { class: 'tile-picture' }, photo(picture, ''), picture.heatmap ? heat(picture) : null),
      element('span', { class: 'tile-text' },
        element('span', { class: 'tile-name' }, picture.path.slice(picture.path.lastIndexOf('/') + 1)),
        element('span', { class: 'tile-line' }, formatNumber(picture.score), item.badge)));
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
