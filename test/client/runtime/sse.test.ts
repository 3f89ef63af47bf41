import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SseSplitter } from '../../../src/client/runtime/sse.js';

/** The data of all events of a text that arrives in pieces. */
function dataOf(...pieces: string[]): (string | undefined)[] {
  const splitter = new SseSplitter();
  const events = pieces.flatMap((piece) => splitter.push(piece));
  const last = splitter.end();
  return [...events, ...(last ? [last] : [])].map(({ data }) => data);
}

describe('SseSplitter', () => {
  it.each([
    ['line feeds', 'data: a\n\ndata: b\n\n'],
    ['carriage returns and line feeds', 'data: a\r\n\r\ndata: b\r\n\r\n'],
    ['carriage returns', 'data: a\r\rdata: b\r\r'],
  ])('splits events at empty lines of %s', (_, text) => {
    expect(dataOf(text)).toEqual(['a', 'b']);
  });

  it('joins the data lines of an event and ignores its other fields', () => {
    expect(dataOf('event: x\nid: 1\ndata: a\ndata:b\nretry: 5\n\n')).toEqual(['a\nb']);
  });

  it('has no data for comments and for events without data', () => {
    expect(dataOf(': keep-alive\n\n', 'event: ping\n\n')).toEqual([undefined, undefined]);
  });

  it('returns an event without an empty line at the end of the stream', () => {
    expect(dataOf('data: a\n\ndata: b\n')).toEqual(['a', 'b']);
    expect(dataOf('data: a\n\n\n')).toEqual(['a']);
  });

  it('keeps the text of events as it arrived', () => {
    const splitter = new SseSplitter();
    expect(splitter.push('event: x\ndata: a\n\nrest').map(({ text }) => text)).toEqual(['event: x\ndata: a\n\n']);
    expect(splitter.pending).toBe(4);
  });

  it('returns the same events however the text is cut into pieces', () => {
    const text = 'data: {"a":1}\n\n: comment\r\n\r\ndata: b\ndata: c\n\ndata: [DONE]\n\n';
    const whole = dataOf(text);
    fc.assert(
      fc.property(fc.array(fc.nat(text.length), { maxLength: 8 }), (cuts) => {
        const at = [0, ...cuts.sort((a, b) => a - b), text.length];
        const pieces = at.slice(1).map((end, index) => text.slice(at[index], end));
        expect(dataOf(...pieces)).toEqual(whole);
      }),
    );
  });
});
