import { describe, expect, it } from 'vitest';
import { readResponse } from '../../../src/client/runtime/read_response.js';

const TEXT = '{"greeting":"grüß dich"}';
const create = (content = TEXT) =>
  readResponse(content, { status: 201, headers: new Headers({ 'content-type': 'application/json' }) });

/** What a reader returns, in a form that can be compared. */
const plain = async (value: unknown): Promise<unknown> => {
  if (value instanceof Blob) return value.text();
  if (value instanceof ArrayBuffer || value instanceof Uint8Array) return Buffer.from(value as Uint8Array).toString();
  return value;
};
const READERS = ['text', 'json', 'arrayBuffer', 'blob'] as const;

describe('a response that has been read', () => {
  it('is a Response with its status and headers', () => {
    const response = create();
    expect(response).toBeInstanceOf(Response);
    expect([response.status, response.ok, response.bodyUsed]).toEqual([201, true, false]);
    expect(response.headers.get('content-type')).toBe('application/json');
  });

  it.each(READERS)('returns from %s what an ordinary response returns', async (reader) => {
    const response = create();
    expect(await plain(await response[reader]())).toEqual(await plain(await new Response(TEXT)[reader]()));
    expect(response.bodyUsed).toBe(true);
  });

  it('has its bytes, also where Node has no bytes()', async () => {
    expect(await plain(await (create() as Response & { bytes(): Promise<Uint8Array> }).bytes())).toBe(TEXT);
  });

  it('can be read as a stream, and as a form', async () => {
    let text = '';
    for await (const chunk of create().body as ReadableStream<Uint8Array>) text += Buffer.from(chunk).toString();
    expect(text).toBe(TEXT);
    const headers = new Headers({ 'content-type': 'application/x-www-form-urlencoded' });
    expect((await readResponse('a=1', { status: 200, headers }).formData()).get('a')).toBe('1');
  });

  it.each(READERS.flatMap((first) => READERS.map((second) => [first, second] as const)))(
    'is read once: after %s, %s rejects and there is no clone',
    async (first, second) => {
      const response = create();
      await response[first]();
      await expect(response[second]()).rejects.toThrow(TypeError);
      expect(() => response.clone()).toThrow(TypeError);
      expect([response.bodyUsed, response.body?.locked]).toEqual([true, expect.any(Boolean)]);
    },
  );

  it('has a clone that is read on its own', async () => {
    const response = create();
    const clone = response.clone();
    expect(await Promise.all([response.text(), clone.json()])).toEqual([TEXT, JSON.parse(TEXT)]);
  });
});
