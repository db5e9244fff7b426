// Starts the page of `kintsugi restore`: pictures before and after, and all files.

startTable(readRows(), null, startPairs());
startPage();
