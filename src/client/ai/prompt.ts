import type { AttemptContext } from '../runtime/model_call.js';
import type { Metadata, Prompt, ProviderOptions, Specification } from './sdk_types.js';

/** The key of this package in provider options and metadata. */
export const OWN_KEY = 'agentllm';

/** Options that callers set on parts of a response, and that are valid everywhere. */
const PORTABLE = new Set(['cacheControl', 'cache_control']);

type Part = { readonly type: string; readonly providerOptions?: ProviderOptions; readonly data?: unknown };

/** Notes on provider metadata where it was created, so that a later call knows where it is valid. */
export function withOrigin<T extends { providerMetadata?: Metadata | undefined }>(part: T, credential: string): T {
  const { providerMetadata } = part;
  if (!providerMetadata || Object.keys(providerMetadata).length === 0) return part;
  return { ...part, providerMetadata: { ...providerMetadata, [OWN_KEY]: { origin: credential } } };
}

/**
 * The prompt for a hop. Item ids, signatures and encrypted reasoning of earlier responses are valid only under the key and
 * at the origin that created them; everywhere else they are removed.
 */
export function promptFor(prompt: Prompt, context: AttemptContext, from: Specification, to: Specification): Prompt {
  return prompt.map((message) => {
    if (message.role === 'system') return message;
    const isResponse = message.role === 'assistant' || message.role === 'tool';
    const parts = message.content as readonly Part[];
    const kept = isResponse ? parts.filter((part) => part.type !== 'custom' || isValid(part, context)) : parts;
    const content = kept.map((part) => convertPart(isResponse ? cleanPart(part, context) : part, from, to));
    return { ...(isResponse ? cleanPart(message, context) : message), content } as Prompt[number];
  });
}

/** Whether the provider options of a part were created where the hop is. Options without a note come from the caller. */
function isValid(
  { providerOptions }: Pick<Part, 'providerOptions'>,
  { credential, isForeign }: AttemptContext,
): boolean {
  const origin = providerOptions?.[OWN_KEY]?.['origin'];
  return origin === undefined ? !isForeign : origin === credential;
}

function cleanPart<T extends { providerOptions?: ProviderOptions | undefined }>(part: T, context: AttemptContext): T {
  const { providerOptions, ...rest } = part;
  if (!providerOptions) return part;
  const isOwn = isValid(part as Pick<Part, 'providerOptions'>, context);
  const kept = Object.entries(providerOptions)
    .filter(([key]) => key !== OWN_KEY)
    .map(([key, options]) => [key, isOwn ? options : portable(options)] as const)
    .filter(([, options]) => Object.keys(options).length > 0);
  return (kept.length > 0 ? { ...rest, providerOptions: Object.fromEntries(kept) } : rest) as T;
}

const portable = (options: ProviderOptions[string]): ProviderOptions[string] =>
  Object.fromEntries(Object.entries(options).filter(([name]) => PORTABLE.has(name)));

/** Version 4 tags the data of files: `{type: 'data', data}` or `{type: 'url', url}`. */
function convertPart(part: Part, from: Specification, to: Specification): Part {
  if (from === to || (part.type !== 'file' && part.type !== 'reasoning-file')) return part;
  return { ...part, data: to === 'v4' ? taggedData(part.data) : untaggedData(part.data) };
}

/** The data of a file as version 4 has it. */
export const taggedData = (data: unknown): unknown =>
  data instanceof URL ? { type: 'url', url: data } : { type: 'data', data };

/** The data of a file as version 3 has it. */
export function untaggedData(data: unknown): unknown {
  const { type, data: bytes, url, text } = (data ?? {}) as Readonly<Record<string, unknown>>;
  if (type === 'url') return url;
  return type === 'text' ? Buffer.from(String(text)) : bytes;
}
