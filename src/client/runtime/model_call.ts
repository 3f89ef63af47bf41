import type { ParameterValues } from '../../domain/parameters.js';
import type { KeyedHop } from '../api_key.js';
import type { Admission, AttemptRequest } from '../budgets/admission.js';
import type { ListenOptions } from '../events.js';
import type { Resolution, ResolutionHop, ResolveOptions } from '../resolution_types.js';
import type { CallSettings } from './call_settings.js';
import type { CallNeeds } from './capabilities.js';
import type { Fetch } from './fetch.js';

/** The agent whose model is called. */
export interface CallableAgent {
  readonly name: string;
  resolve(options?: ResolveOptions): Resolution;
  apiKey(hop?: KeyedHop, options?: ListenOptions): Promise<string | undefined>;
  /** Whether the budgets permit an attempt. Absent: no budget limits the agent. */
  admit?(request: AttemptRequest): Admission | Promise<Admission>;
}

/** One call of an agent's model, independent of the SDK that makes it. */
export interface ModelCall {
  readonly agent: CallableAgent;
  readonly settings: CallSettings;
  /** Parameters of this call, which replace the configured ones in every hop. */
  readonly overrides: ParameterValues;
  /** Parameters of this call for one hop, for example options that only its provider has. Default: none. */
  readonly hopOverrides?: ((hop: ResolutionHop) => ParameterValues) | undefined;
  readonly needs: CallNeeds;
  readonly signal: AbortSignal | undefined;
}

/** The input of an adapter for one attempt with the provider package of its SDK. */
export interface AttemptContext {
  readonly hop: ResolutionHop;
  /**
   * The key for the settings of the package. It is a placeholder that `fetch` replaces by the API key, so that errors and
   * logs of the package cannot contain the key. Never undefined: without a key, some packages read one from the
   * environment.
   */
  readonly apiKey: string;
  /**
   * Sends the one request of the attempt. It sets the parameters of the hop in the body, and throws for every response that
   * is not a success.
   */
  readonly fetch: Fetch;
  /** Aborts when the attempt has ended without success. */
  readonly signal: AbortSignal;
  /**
   * Identifies the origin and the key of the hop, without containing the key. Item ids, signatures and encrypted
   * reasoning in a prompt are valid only with the origin and key with which they were created.
   */
  readonly credential: string;
  /** Whether origin or key differ from those of the first hop of the chain. */
  readonly isForeign: boolean;
  /** The configured and requested values that are changed or left out for the model, one sentence each. */
  readonly adaptations: readonly string[];
  /** Adds a sentence about something that the adapter changes or leaves out to the adaptations of the receipt. */
  note(sentence: string): void;
}

/** Makes the attempts of a call that streams parts of type P. */
export interface PartSource<P> {
  /** Starts an attempt. The engine closes the returned stream if it does not read it to its end. */
  open(context: AttemptContext): PromiseLike<ReadableStream<P> | AsyncIterable<P>>;
  /** Whether a part is content that a caller can show or use. */
  isContent(part: P): boolean;
  /** The text of a part, for the content of a TornStreamError; empty if it has none. */
  textOf(part: P): string;
  /** The error that a part carries; undefined if it carries none. */
  errorOf(part: P): unknown;
}

/** Thrown by an adapter for a hop whose package or API cannot express the call. The chain skips the hop. */
export class UnsupportedCall extends Error {
  override readonly name = 'UnsupportedCall';

  /** @param capability the capability that the call needs, for example `pdf`. */
  constructor(
    readonly capability: string,
    message: string,
    cause?: unknown,
  ) {
    super(message, { cause });
  }
}
