'use strict';
Object.defineProperty(exports, '__esModule', { value: true });
exports.importPeer = (name) => import(name);
