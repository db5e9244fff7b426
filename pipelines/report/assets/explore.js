// Starts the page of what a model believes: which image a point is, and one sub-folder at a time.

function startPoints() {
  const plot = byId('points');
  if (!plot) return;
  const { names, across } = readData('points');
  const sprite = byId('sprite');
  const side = sprite.width / Math.min(across, names.length);
  const shown = element('canvas', { width: side, height: side });
  const text = element('span');
  const card = element('div', { class: 'seen', hidden: true }, shown, text);
  document.body.append(card);
  plot.addEventListener('pointerover', (event) => {
    const index = event.target.dataset.i;
    if (index === undefined) return;
    text.textContent = names[index];
    shown.getContext('2d').drawImage(sprite, side * (index % across), side * Math.floor(index / across), side, side, 0, 0, side, side);
    card.hidden = false;
    const point = event.target.getBoundingClientRect();
    const left = clamp(point.right + 10, 8, document.documentElement.clientWidth - card.offsetWidth - 8);
    card.style.setProperty('left', `${left}px`);
    const above = point.top - card.offsetHeight - 8;
    card.style.setProperty('top', `${above > 4 ? above : point.bottom + 8}px`);
  });
  plot.addEventListener('pointerout', () => { card.hidden = true; });
}

/** Select a sub-folder: the others fade. */
function startKinds() {
  const list = byId('kinds');
  if (!list) return;
  list.addEventListener('click', (event) => {
    const button = event.target.closest('button');
    if (!button) return;
    const chosen = button.getAttribute('aria-pressed') === 'true' ? null : button.dataset.group;
    for (const each of list.querySelectorAll('button')) each.setAttribute('aria-pressed', String(each.dataset.group === chosen));
    for (const group of byId('points').querySelectorAll('g')) group.classList.toggle('faded', chosen !== null && group.dataset.group !== chosen);
  });
}

startPoints();
startKinds();
startPage();
