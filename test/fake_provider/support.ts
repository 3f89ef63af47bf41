import { onTestFinished } from 'vitest';
import {
  type FakeProvider,
  type FakeProviderOptions,
  startFakeProvider,
} from '../../src/fake_provider/fake_provider.js';

/** Starts a fake provider that ends with the test. */
export async function fakeProvider(options: FakeProviderOptions = {}): Promise<FakeProvider> {
  const fake = await startFakeProvider(options);
  onTestFinished(() => fake.close());
  return fake;
}

/** The response of a request, read completely. */
export interface FakeResponse {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests read untyped JSON
  readonly json: any;
}

/** Posts a body, which is JSON unless it is a text. */
export async function post(url: string, body: unknown, headers: Record<string, string> = {}): Promise<FakeResponse> {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return read(
    await fetch(url, { method: 'POST', body: text, headers: { 'content-type': 'application/json', ...headers } }),
  );
}

export const get = async (url: string, headers: Record<string, string> = {}): Promise<FakeResponse> =>
  read(await fetch(url, { headers }));

async function read(response: Response): Promise<FakeResponse> {
  const text = await response.text();
  return { status: response.status, headers: response.headers, text, json: jsonOr(text) };
}

function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The data of the events of a stream, with `[DONE]` as a text. */
// biome-ignore lint/suspicious/noExplicitAny: tests read untyped JSON
export const eventsIn = (text: string): any[] =>
  [...text.matchAll(/^data: (.*)$/gm)].map(([, data = '']) => (data === '[DONE]' ? data : jsonOr(data)));

/** A minimal valid body for each API. */
export const BODIES = {
  chat_completions: { model: 'gpt-4o', messages: [{ role: 'user', content: 'Hello' }] },
  responses: { model: 'gpt-4o', input: 'Hello' },
  messages: { model: 'claude-haiku-4-5', max_tokens: 1000, messages: [{ role: 'user', content: 'Hello' }] },
} as const;

export const ANTHROPIC = { 'anthropic-version': '2023-06-01' };
