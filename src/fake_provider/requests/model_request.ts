import type { ProviderName, WireApi } from '../providers.js';

export interface Tool {
  readonly name: string;
  /** The JSON schema of its arguments. */
  readonly schema: unknown;
}

export type ToolChoice = 'none' | 'auto' | 'required' | { readonly name: string };

/** The form that the text of the response has to have. */
export type ResponseFormat =
  | { readonly type: 'json_object' }
  | { readonly type: 'json_schema'; readonly schema: unknown };

/** A valid request, in a form that does not depend on the wire API. */
export interface ModelRequest {
  readonly api: WireApi;
  readonly provider: ProviderName;
  readonly model: string;
  readonly stream: boolean;
  /** Whether a stream of chat completions ends with the usage. */
  readonly includeUsage: boolean;
  /** The text of the instructions and of all messages. */
  readonly prompt: string;
  readonly inputTokens: number;
  readonly tools: readonly Tool[];
  readonly toolChoice: ToolChoice;
  /** Whether the last message is the result of a tool. */
  readonly followsToolResult: boolean;
  /** Whether the last message is of the assistant, which the response has to continue. */
  readonly isPrefilled: boolean;
  readonly format: ResponseFormat | undefined;
  /** Maximum output tokens. */
  readonly maxTokens: number | undefined;
  readonly stop: readonly string[];
  /** Whether the response contains the reasoning of the model, if it has any. */
  readonly showsReasoning: boolean;
  /** Whether the Responses API stores the response, and whether it encrypts the reasoning for the client. */
  readonly store: boolean;
  readonly encryptsReasoning: boolean;
}

const CHARACTERS_PER_TOKEN = 4;
const TOKENS_PER_IMAGE = 85;

/** Collects the text of a prompt and counts its tokens. */
export class Prompt {
  private readonly parts: string[] = [];
  private images = 0;

  add(text: string): void {
    this.parts.push(text);
  }

  addImage(): void {
    this.images++;
  }

  get text(): string {
    return this.parts.join('\n');
  }

  get tokens(): number {
    return Math.max(1, Math.ceil(this.text.length / CHARACTERS_PER_TOKEN)) + this.images * TOKENS_PER_IMAGE;
  }
}
