import type { BaseChatModel, BindToolsInput } from '@langchain/core/language_models/chat_models';
import type { AIMessageChunk, BaseMessage } from '@langchain/core/messages';
import type { Runnable } from '@langchain/core/runnables';
import { loadPeer } from '../peer_loader.js';
import type { Fetch } from '../runtime/fetch.js';
import type { AttemptContext } from '../runtime/model_call.js';
import type { AgentCallOptions, ResponseSchema } from './call_options.js';

/** The major version of the provider packages. */
const MAJOR = 1;

type ChatModelClass = new (fields: object) => BaseChatModel;
type Call = Runnable<BaseMessage[], AIMessageChunk>;

/** The model of a provider package for an attempt, with the tools and the schema in the form that the hop supports. */
export async function hopModel(context: AttemptContext, options: AgentCallOptions): Promise<Call> {
  const model = context.hop.wire_api === 'WIRE_API_MESSAGES' ? await anthropic(context) : await openai(context);
  return bind(model, context, options);
}

async function openai({ hop, apiKey, fetch }: AttemptContext): Promise<BaseChatModel> {
  const { ChatOpenAI } = await loadPeer('@langchain/openai', MAJOR);
  return new (ChatOpenAI as ChatModelClass)({
    model: hop.model_name,
    apiKey,
    maxRetries: 0,
    streamUsage: true,
    useResponsesApi: hop.wire_api === 'WIRE_API_RESPONSES',
    // Nothing is stored, so the package must not refer to stored items.
    zdrEnabled: hop.wire_api === 'WIRE_API_RESPONSES',
    // Without these, the client would send those of the environment, which may belong to another provider.
    configuration: { baseURL: hop.base_url, fetch, maxRetries: 0, organization: null, project: null },
  });
}

/** The path that the client of Anthropic adds to its base URL. The base URLs of the catalogue end with it. */
const VERSION = '/v1';

async function anthropic(context: AttemptContext): Promise<BaseChatModel> {
  const { hop, apiKey } = context;
  const { ChatAnthropic } = await loadPeer('@langchain/anthropic', MAJOR);
  const base = hop.base_url.endsWith(VERSION) ? hop.base_url.slice(0, -VERSION.length) : hop.base_url;
  const limit = hop.parameters.find(({ name }) => name === 'max_tokens')?.value;
  const send: Fetch = (input, init) =>
    context.fetch(String(input).replace(`${base}${VERSION}/`, `${hop.base_url}/`), init);
  return new (ChatAnthropic as ChatModelClass)({
    model: hop.model_name,
    apiKey,
    maxRetries: 0,
    anthropicApiUrl: base,
    clientOptions: { fetch: send, maxRetries: 0, authToken: null },
    ...(typeof limit === 'number' && { maxTokens: limit }),
  });
}

/** Replays the tools and the schema that the caller has bound. */
function bind(model: BaseChatModel, context: AttemptContext, options: AgentCallOptions): Call {
  const { tools = [], tool_choice, responseSchema } = options;
  const choice = tool_choice === undefined ? {} : { tool_choice };
  if (!responseSchema) return tools.length > 0 ? bindTools(model, tools, choice) : (model as unknown as Call);
  const { name, schema } = responseSchema;
  if (acceptsSchema(context)) {
    const response_format = { type: 'json_schema', json_schema: { name, schema } };
    const format = { response_format } as object;
    return tools.length > 0
      ? bindTools(model, tools, { ...choice, ...format })
      : (model.withConfig(format) as unknown as Call);
  }
  const { provider, model_name } = context.hop;
  context.note(`The schema is sent as a tool to ${provider}/${model_name}`);
  return bindTools(model, [...tools, toolOf(responseSchema)], { tool_choice: schemaChoice(context, tools, name) });
}

/** Whether the API of the hop has a field for a schema, and its model may accept it. */
const acceptsSchema = ({ hop }: AttemptContext): boolean =>
  hop.wire_api !== 'WIRE_API_MESSAGES' && hop.model.supports_structured_output !== false;

/** The schema's tool is forced if the model supports that. */
function schemaChoice({ hop }: AttemptContext, tools: readonly unknown[], name: string): string {
  if (hop.model.supports_forced_tool_choice === false) return 'auto';
  return tools.length > 0 ? 'any' : name;
}

const toolOf = ({ name, description = 'The response.', schema }: ResponseSchema): BindToolsInput => ({
  type: 'function',
  function: { name, description, parameters: schema },
});

const bindTools = (model: BaseChatModel, tools: BindToolsInput[], more: object): Call =>
  (model.bindTools as NonNullable<BaseChatModel['bindTools']>)(tools, more) as unknown as Call;
