import { type StreamUsageResponse, UsageServiceService } from '../../../gen/ts/agentllm/v1/usage_service.js';
import type { Connection, RequestStream } from '../connection.js';
import type { AgentLLMError } from '../error.js';

const METHOD = UsageServiceService.streamUsage;
export const STREAM_METHOD = METHOD.path.slice(1);

/** Receives the events of a stream. */
export interface StreamObserver {
  opened(requests: RequestStream): void;
  acknowledged(response: StreamUsageResponse): void;
  /** Called once when the stream has ended. @param error undefined: the service ended the stream without an error. */
  ended(error: AgentLLMError | undefined): void;
}

/** Opens a stream to the service; the returned function aborts it. */
export type OpenStream = (observer: StreamObserver) => () => void;

export const openStreamOver =
  (connection: Connection): OpenStream =>
  (observer) => {
    const closing = new AbortController();
    connection
      .duplex(
        METHOD,
        (requests) => observer.opened(requests),
        (response) => observer.acknowledged(response),
        closing.signal,
      )
      .then(
        () => observer.ended(undefined),
        (error: AgentLLMError) => observer.ended(error),
      );
    return () => closing.abort();
  };
