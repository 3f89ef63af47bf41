import type { WireApi } from '../../../gen/ts/agentllm/v1/provider.js';
import { chatCompletions } from './chat_completions.js';
import { messages } from './messages.js';
import { responses } from './responses.js';
import type { ResponseFacts, WireReader } from './wire_reader.js';

const readers: Partial<Record<WireApi, (facts: ResponseFacts) => WireReader>> = {
  WIRE_API_CHAT_COMPLETIONS: chatCompletions,
  WIRE_API_RESPONSES: responses,
  WIRE_API_MESSAGES: messages,
};

/** The reader for responses of a wire API. A wire API that this version does not know is read as chat completions. */
export const readerOf = (wireApi: WireApi, facts: ResponseFacts): WireReader =>
  (readers[wireApi] ?? chatCompletions)(facts);
