import type { CallbackManagerForLLMRun } from '@langchain/core/callbacks/manager';
import type { BaseLanguageModelInput, StructuredOutputMethodOptions } from '@langchain/core/language_models/base';
import { BaseChatModel, type BindToolsInput } from '@langchain/core/language_models/chat_models';
import { assembleStructuredOutputPipeline } from '@langchain/core/language_models/structured_output';
import { AIMessageChunk, type BaseMessage } from '@langchain/core/messages';
import { ChatGenerationChunk, type ChatResult } from '@langchain/core/outputs';
import type { Runnable } from '@langchain/core/runnables';
import type { Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import { callSettings, type ModelOptions } from '../runtime/call_settings.js';
import { generate } from '../runtime/generate.js';
import type { AttemptContext, CallableAgent, ModelCall, PartSource } from '../runtime/model_call.js';
import { receiptJson } from '../runtime/receipt_json.js';
import type { Runtime } from '../runtime/runtime.js';
import { stream } from '../runtime/stream.js';
import { type AgentCallOptions, needsOf, overridesOf } from './call_options.js';
import { hopModel } from './hop_model.js';
import { ORIGIN, promptFor } from './prompt.js';
import { type OutputSchema, outputParser, responseSchemaOf } from './structured_output.js';

/** The fields of an AgentChatModel. */
interface Fields {
  readonly agent: CallableAgent;
  readonly runtime: Runtime;
  /** Checked options; later ones have precedence. */
  readonly options: readonly ModelOptions[];
}

/**
 * The chat model of an agent for LangChain. Each call resolves the agent again and tries the hops of its chain. Tools
 * and schemas are recorded when they are bound, and replayed at each hop in the form that it supports.
 */
export class AgentChatModel extends BaseChatModel<AgentCallOptions> {
  override lc_serializable = false;
  private readonly fields: Fields;

  constructor(fields: Fields) {
    super({});
    this.fields = fields;
    // As a property it keeps the overloads of the base class, from which the type of the output follows.
    Object.defineProperty(this, 'withStructuredOutput', {
      value: (schema: OutputSchema, options?: StructuredOutputMethodOptions<boolean>) =>
        this.structured(schema, options),
    });
  }

  override _llmType(): string {
    return 'agentllm';
  }

  /** What tracers record as the model: the agent, because its models change. */
  override getLsParams() {
    return { ls_provider: 'agentllm', ls_model_name: this.fields.agent.name, ls_model_type: 'chat' as const };
  }

  override bindTools(
    tools: BindToolsInput[],
    kwargs: Partial<AgentCallOptions> = {},
  ): Runnable<BaseLanguageModelInput, AIMessageChunk, AgentCallOptions> {
    return this.withConfig({ ...kwargs, tools });
  }

  override async _generate(messages: BaseMessage[], options: this['ParsedCallOptions']): Promise<ChatResult> {
    const { fields } = this;
    let credential = '';
    const attempt = async (context: AttemptContext) => {
      credential = context.credential;
      const model = await hopModel(context, options);
      return model.invoke(promptFor(messages, context), callConfig(context));
    };
    const { value, receipt } = await generate(fields.runtime, this.callOf(messages, options), attempt);
    const message = chunkOf(value, credential, receipt);
    return { generations: [{ text: message.text, message }] };
  }

  override async *_streamResponseChunks(
    messages: BaseMessage[],
    options: this['ParsedCallOptions'],
    runManager?: CallbackManagerForLLMRun,
  ): AsyncGenerator<ChatGenerationChunk> {
    const source = new MessageParts(messages, options);
    const parts = await stream(this.fields.runtime, this.callOf(messages, options), source);
    try {
      for (;;) {
        const { value, done } = await parts.next();
        const message = done ? finalChunk(source.credential, value) : value;
        const text = message.text;
        const chunk = new ChatGenerationChunk({ text, message });
        yield chunk;
        await runManager?.handleLLMNewToken(text, undefined, undefined, undefined, undefined, { chunk });
        if (done) return;
      }
    } finally {
      parts.close();
    }
  }

  /** Records a schema for the response. `method` and `strict` of the options depend on the hop and are ignored. */
  private structured(schema: OutputSchema, { name, includeRaw }: StructuredOutputMethodOptions<boolean> = {}) {
    const responseSchema = responseSchemaOf(schema, name);
    const model = this.withConfig({ responseSchema });
    return assembleStructuredOutputPipeline(
      model,
      outputParser(schema, responseSchema.name),
      includeRaw,
      'StructuredOutput',
    );
  }

  private callOf(messages: readonly BaseMessage[], options: this['ParsedCallOptions']): ModelCall {
    const { agent, options: settings } = this.fields;
    return {
      agent,
      settings: callSettings(...settings),
      overrides: overridesOf(options),
      needs: needsOf(messages, options),
      signal: options.signal,
    };
  }
}

/** The chain reports its own call to callbacks and tracers; the calls of the provider packages are parts of it. */
const callConfig = ({ signal }: AttemptContext) => ({ signal, callbacks: [] });

/** The attempts of a call that streams. */
class MessageParts implements PartSource<AIMessageChunk> {
  /** Where the last attempt was made. */
  credential = '';

  constructor(
    private readonly messages: readonly BaseMessage[],
    private readonly options: AgentCallOptions,
  ) {}

  async open(context: AttemptContext): Promise<AsyncIterable<AIMessageChunk>> {
    this.credential = context.credential;
    const model = await hopModel(context, this.options);
    return model.stream(promptFor(this.messages, context), callConfig(context));
  }

  isContent({ text, content, tool_call_chunks, additional_kwargs }: AIMessageChunk): boolean {
    const hasParts = Array.isArray(content) && content.length > 0;
    const reasoning = additional_kwargs['reasoning_content'];
    return text !== '' || hasParts || (tool_call_chunks?.length ?? 0) > 0 || Boolean(reasoning);
  }

  textOf({ text }: AIMessageChunk): string {
    return text;
  }

  errorOf(): undefined {
    return undefined;
  }
}

const metadataOf = (credential: string, receipt: Receipt) => ({ [ORIGIN]: credential, agentllm: receiptJson(receipt) });

/** A response with its receipt. Packages return messages and chunks; the functions of the base class expect chunks. */
function chunkOf(message: AIMessageChunk, credential: string, receipt: Receipt): AIMessageChunk {
  const { content, additional_kwargs, response_metadata, tool_calls, invalid_tool_calls, usage_metadata, id } = message;
  return new AIMessageChunk({
    content,
    additional_kwargs,
    response_metadata: { ...response_metadata, ...metadataOf(credential, receipt) },
    ...(tool_calls && { tool_calls }),
    ...(invalid_tool_calls && { invalid_tool_calls }),
    ...(usage_metadata && { usage_metadata }),
    ...(id !== undefined && { id }),
  });
}

const finalChunk = (credential: string, receipt: Receipt): AIMessageChunk =>
  new AIMessageChunk({ content: '', response_metadata: metadataOf(credential, receipt) });
