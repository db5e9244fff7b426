// Starts a page over time: what is said of a run shows at once, and arrow keys go from run to run.

function startTimelines() {
  for (const chart of document.querySelectorAll('.timeline')) {
    const links = [...chart.querySelectorAll('a')];
    for (const link of links) {
      const title = link.querySelector('title'); // the browser's own comes late, and not on focus
      link.dataset.tip = title.textContent;
      link.setAttribute('aria-label', title.textContent);
      title.remove();
    }
    chart.addEventListener('keydown', (event) => {
      const here = links.indexOf(document.activeElement);
      const place = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: links.length - 1 }[event.key];
      if (here < 0 || place === undefined) return;
      event.preventDefault();
      const next = links[clamp(place, 0, links.length - 1)];
      links[here].setAttribute('tabindex', '-1');
      next.setAttribute('tabindex', '0');
      next.focus();
    });
    // Where it does not fit: the newest runs first, and the scale stays in view.
    const svg = chart.querySelector('svg');
    const scale = chart.querySelector('.scale');
    chart.addEventListener('scroll', () => scale.setAttribute('transform', `translate(${(chart.scrollLeft * svg.viewBox.baseVal.width) / svg.clientWidth} 0)`), { passive: true });
    chart.scrollLeft = chart.scrollWidth;
  }
}

startTimelines();
startTips();
