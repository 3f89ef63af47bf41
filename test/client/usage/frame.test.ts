import { describe, expect, it } from 'vitest';
import { frameOf, readFrames } from '../../../src/client/usage/frame.js';

const CONTENTS = ['first', 'second record', ''].map((text) => Buffer.from(text));
const FILE = Buffer.concat(CONTENTS.map(frameOf));

describe('readFrames', () => {
  it('returns the contents that frameOf has framed', () => {
    expect(readFrames(FILE)).toEqual({ contents: CONTENTS, damaged: 0, tornBytes: 0 });
  });

  it('returns every complete frame when the file is cut off at any byte', () => {
    const ends = CONTENTS.map((_, at) => Buffer.concat(CONTENTS.slice(0, at + 1).map(frameOf)).length);
    for (let length = 0; length <= FILE.length; length++) {
      const { contents, damaged, tornBytes } = readFrames(FILE.subarray(0, length));
      const complete = ends.filter((end) => end <= length).length;
      expect(contents).toEqual(CONTENTS.slice(0, complete));
      expect(damaged).toBe(0);
      expect(tornBytes).toBe(length - (ends[complete - 1] ?? 0));
    }
  });

  it('loses only the damaged frame when any byte of it is changed', () => {
    const [first, second] = CONTENTS.map((content) => frameOf(content).length) as [number, number, number];
    for (let at = first; at < first + second; at++) {
      const file = Buffer.from(FILE);
      file[at] = (file[at] as number) ^ 0xff;
      expect(readFrames(file)).toEqual({ contents: [CONTENTS[0], CONTENTS[2]], damaged: 1, tornBytes: 0 });
    }
  });

  it('reads no frame from other bytes', () => {
    expect(readFrames(Buffer.alloc(1_000, 0xa7))).toMatchObject({ contents: [], tornBytes: 1_000 });
  });
});
