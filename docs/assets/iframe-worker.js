/* Search runs in a worker, and browsers start no worker for a page that is opened from the disk. There a hidden frame
   takes the worker's place: the same script, the same messages. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      inside.document.open();
      inside.document.write(
        "<script>" +
          "postMessage = (data) => parent.dispatchEvent(new MessageEvent('from-search', { data }));" +
          "importScripts = (...all) => all.reduce((before, src) => before.then(() => new Promise((done, failed) => {" +
          "const script = Object.assign(document.createElement('script'), { src, onload: done, onerror: failed });" +
          "document.head.append(script); })), Promise.resolve());" +
          "<" + "/script><script src='" + address + "'><" + "/script>"
      );
      inside.document.close();
      this.inside = inside;
      this.ready = new Promise((done) => inside.addEventListener("load", done, { once: true }));
      window.addEventListener("from-search", (event) => {
        const copy = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(copy);
        if (this.onmessage) this.onmessage(copy);
      });
    }
    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {}
  };
}
