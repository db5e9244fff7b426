"""The pictures of docs/lectures.md, a module each: `draw(setting)` makes one."""
