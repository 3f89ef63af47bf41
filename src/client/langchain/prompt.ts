import { AIMessage, type BaseMessage } from '@langchain/core/messages';
import type { AttemptContext } from '../runtime/model_call.js';

/** The key of the note in `response_metadata` that says where a message was created. */
export const ORIGIN = 'agentllm_origin';

/** Parts of a response that are valid everywhere. */
const PORTABLE = new Set(['text', 'image_url', 'image']);

/**
 * The messages for a hop. Item ids, signatures and encrypted reasoning of earlier responses are valid only under the key
 * and at the origin that created them; everywhere else they are removed.
 */
export const promptFor = (messages: readonly BaseMessage[], context: AttemptContext): BaseMessage[] =>
  messages.map((message) =>
    AIMessage.isInstance(message) && !isValid(message, context) ? portable(message) : message,
  );

/** Whether a message was created where the hop is. A message without a note comes from the caller. */
function isValid({ response_metadata }: AIMessage, { credential, isForeign }: AttemptContext): boolean {
  const origin: unknown = (response_metadata as Readonly<Record<string, unknown>> | undefined)?.[ORIGIN];
  return origin === undefined ? !isForeign : origin === credential;
}

function portable({ content, tool_calls, name }: AIMessage): AIMessage {
  const kept = Array.isArray(content)
    ? content
        .filter(({ type }) => PORTABLE.has(String(type)))
        .map((part) => (part.type === 'text' ? { type: 'text' as const, text: String(part['text']) } : part))
    : content;
  return new AIMessage({ content: kept, ...(tool_calls && { tool_calls }), ...(name !== undefined && { name }) });
}
