import type { WireApi } from '../../gen/ts/agentllm/v1/provider.js';
import type { ResolutionHop } from '../client/resolution_types.js';
import type { AttemptContext, PartSource } from '../client/runtime/model_call.js';
import { SseSplitter } from '../client/runtime/sse.js';
import { originOf } from '../domain/origin.js';
import type { WireApi as FakeWireApi } from '../fake_provider/providers.js';
import { baseUrlOf, isProvider, PROVIDER_ALIASES, type ProviderName, providers } from '../fake_provider/providers.js';

/*
 * The call that a rehearsal makes: a prompt of one message, sent in the wire API of each hop. It stands in for the provider
 * packages of an SDK, which need not be installed.
 */

const PROMPT = 'This is a rehearsal. Respond with a short text.';
/** The output limit for a hop without one, which the Messages API requires. */
const MAX_TOKENS = 1024;
const MESSAGES = [{ role: 'user', content: PROMPT }];

interface WireForm {
  readonly name: FakeWireApi;
  readonly path: string;
  readonly body: object;
  headers(apiKey: string): Record<string, string>;
}

const bearer = (apiKey: string) => ({ authorization: `Bearer ${apiKey}` });
const CHAT: WireForm = {
  name: 'chat_completions',
  path: '/chat/completions',
  body: { messages: MESSAGES },
  headers: bearer,
};
const FORMS: Partial<Record<WireApi, WireForm>> = {
  WIRE_API_RESPONSES: { name: 'responses', path: '/responses', body: { input: PROMPT }, headers: bearer },
  WIRE_API_MESSAGES: {
    name: 'messages',
    path: '/messages',
    body: { max_tokens: MAX_TOKENS, messages: MESSAGES },
    headers: (apiKey) => ({ 'x-api-key': apiKey, 'anthropic-version': '2023-06-01' }),
  },
};
const formOf = ({ wire_api }: ResolutionHop): WireForm => FORMS[wire_api] ?? CHAT;

/** The provider whose responses a hop gets: the one that the fake provider emulates, or a compatible one. */
export function emulatedProvider(hop: ResolutionHop): ProviderName {
  const { provider } = hop;
  const alias = Object.hasOwn(PROVIDER_ALIASES, provider) ? (PROVIDER_ALIASES[provider] as ProviderName) : provider;
  const name = isProvider(alias) ? alias : 'compatible';
  return providers[name].endpoints.includes(formOf(hop).name) ? name : 'compatible';
}

/** The path of a hop at the fake provider, which distinguishes hops of the same provider. */
const pathOf = (hop: ResolutionHop): string => baseUrlOf('', emulatedProvider(hop), `hop-${hop.index}`);

/** What a rehearsal knows about its attempts. */
export interface AttemptSettings {
  /** The header that states the fault of a hop. */
  faultOf(hop: ResolutionHop): string;
  /** Called at the start of an attempt; the result is called at its end. */
  begin(signal: AbortSignal): () => void;
}

/** Sends the request of an attempt to the origin of its hop, at the path that the hop has at the fake provider. */
function send(context: AttemptContext, { faultOf }: AttemptSettings, stream: boolean): Promise<Response> {
  const { hop, apiKey, signal } = context;
  const { path, body, headers } = formOf(hop);
  return context.fetch(`${originOf(hop.base_url)}${pathOf(hop)}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-fake-fault': faultOf(hop), ...headers(apiKey) },
    body: JSON.stringify({ model: hop.model_name, ...body, ...(stream && { stream }) }),
    signal,
  });
}

/** Makes an attempt without a stream. */
export async function requestText(context: AttemptContext, settings: AttemptSettings): Promise<unknown> {
  const end = settings.begin(context.signal);
  try {
    return await (await send(context, settings, false)).json();
  } finally {
    end();
  }
}

/** Makes the attempts of a call that streams; a part is the text of an event. */
export const textParts = (settings: AttemptSettings): PartSource<string> => ({
  async open(context) {
    const end = settings.begin(context.signal);
    const response = await send(context, settings, true);
    return texts(response.body as ReadableStream<Uint8Array>, end);
  },
  isContent: (part) => part !== '',
  textOf: (part) => part,
  errorOf: () => undefined,
});

async function* texts(body: ReadableStream<Uint8Array>, end: () => void): AsyncGenerator<string> {
  const splitter = new SseSplitter();
  const decoder = new TextDecoder();
  try {
    for await (const chunk of body)
      for (const { data } of splitter.push(decoder.decode(chunk, { stream: true }))) yield textOf(data);
  } finally {
    end();
  }
}

/** The fields of an event that can have text, in any wire API. */
interface TextEvent {
  readonly choices?: readonly { readonly delta?: { readonly content?: string | null } }[];
  readonly delta?: string | { readonly text?: string };
}

/** The text of an event; empty if it has none. */
function textOf(data: string | undefined): string {
  if (!data?.startsWith('{')) return '';
  const { choices, delta } = JSON.parse(data) as TextEvent;
  if (choices) return choices[0]?.delta?.content ?? '';
  return (typeof delta === 'string' ? delta : delta?.text) ?? '';
}
