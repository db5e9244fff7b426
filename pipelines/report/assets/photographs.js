// Starts the page of several restorations side by side.

startPairs();
startPage();
