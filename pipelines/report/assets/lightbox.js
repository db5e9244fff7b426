// One picture over the page, with its neighbours an arrow key away.

/**
 * @param {object} options
 * @param {(item: object) => Node} options.view the picture
 * @param {(item: object) => string} options.title
 * @param {(item: object) => Node[]} options.details what is said below it
 * @param {(item: object) => Node | null} options.beside what is shown next to the picture
 * @param {Node[]} options.controls shown in the head for every picture
 * @returns {{open: (items: object[], index: number) => void, refresh: () => void}}
 */
function createLightbox({ view, title, details, beside, controls }) {
  let items = [];
  let index = 0;
  const heading = element('p', { class: 'lightbox-title', id: 'lightbox-title' });
  const place = element('span', { class: 'lightbox-place' });
  const stage = element('div', { class: 'lightbox-view' });
  const aside = element('div', { class: 'lightbox-aside' });
  const foot = element('div', { class: 'lightbox-foot', 'aria-live': 'polite' });
  const step = (by, label, sign) => element('button', { type: 'button', class: 'lightbox-button lightbox-step', 'aria-label': label, click: () => go(index + by) }, sign);
  const previous = step(-1, 'Previous image', '\u2190');
  const next = step(1, 'Next image', '\u2192');
  const dialog = element('dialog', { class: 'lightbox', 'aria-labelledby': 'lightbox-title', tabindex: '-1' },
    element('div', { class: 'lightbox-head' }, heading, place, ...controls,
      element('button', { type: 'button', class: 'lightbox-button lightbox-close', 'aria-label': 'Close', click: () => dialog.close() }, '\u00d7')),
    element('div', { class: 'lightbox-stage' }, previous, stage, aside, next), foot);
  document.body.append(dialog);

  function go(to) {
    if (to < 0 || to >= items.length) return;
    index = to;
    stage.replaceChildren(view(items[index]));
    aside.replaceChildren(...[beside(items[index])].filter(Boolean));
    heading.textContent = title(items[index]);
    heading.title = title(items[index]);
    refresh();
  }

  function refresh() {
    if (!items.length) return;
    place.textContent = `${index + 1} of ${items.length}`;
    previous.disabled = index === 0;
    next.disabled = index === items.length - 1;
    foot.replaceChildren(...details(items[index]));
  }

  dialog.addEventListener('keydown', (event) => {
    if (event.target instanceof HTMLInputElement) return; // the opacity slider keeps its arrow keys
    const target = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: items.length - 1 }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    go(target);
  });

  return {
    open(list, at) {
      items = list;
      go(at);
      dialog.showModal();
      dialog.focus();
    },
    refresh,
  };
}
