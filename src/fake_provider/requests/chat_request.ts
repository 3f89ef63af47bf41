import { type ProviderName, providers } from '../providers.js';
import { invalidRequest, Rejection } from '../responses/provider_error.js';
import { type ModelRequest, Prompt, type ResponseFormat, type Tool, type ToolChoice } from './model_request.js';
import { checkModelParameters, type ModelRule } from './model_rules.js';
import { CHAT_PARAMETERS, checkParameters, type Fields, FOREIGN_CHAT_PARAMETERS, isFields } from './parameters.js';
import { checkImageUrl, checkJsonWord, checkName, checkSchema, namedChoice } from './request_checks.js';
import { missingField, unknownParameter, wrongType, wrongValue } from './wording.js';

const ROLES = ['system', 'assistant', 'user', 'function', 'tool', 'developer'];

/** Reads a body of chat completions. Throws a Rejection, as the provider words it. */
export function readChatRequest(provider: ProviderName, model: string, body: Fields, rule: ModelRule): ModelRequest {
  const emulated = providers[provider];
  const { wording, rejectsUnknownParameters } = emulated;
  if (rejectsUnknownParameters)
    for (const name of FOREIGN_CHAT_PARAMETERS) if (body[name] !== undefined) throw unknownParameter(wording, name);
  checkParameters(body, CHAT_PARAMETERS, wording, rejectsUnknownParameters);
  if (body['n'] !== undefined && body['n'] !== null && body['n'] !== 1)
    throw invalidRequest("The fake provider generates one choice; 'n' must be 1.", 'unsupported_value', 'n');
  const effort = body['reasoning_effort'];
  checkModelParameters(body, rule, wording, effort);
  const messages = readMessages(provider, body['messages'] as readonly unknown[], rule);
  const tools = readTools(provider, body['tools']);
  return {
    api: 'chat_completions',
    provider,
    model,
    stream: body['stream'] === true,
    includeUsage: isFields(body['stream_options']) && body['stream_options']['include_usage'] === true,
    ...messages,
    tools,
    toolChoice: readToolChoice(provider, body['tool_choice'], tools, rule),
    format: readFormat(provider, body['response_format'], messages.prompt),
    maxTokens: (body['max_completion_tokens'] ?? body['max_tokens'] ?? undefined) as number | undefined,
    stop: readStop(provider, body['stop']),
    showsReasoning: provider !== 'openai' && !isDisabled(body['thinking']),
    store: false,
    encryptsReasoning: false,
  };
}

const isDisabled = (thinking: unknown) => isFields(thinking) && thinking['type'] === 'disabled';

type MessageFacts = Pick<ModelRequest, 'prompt' | 'inputTokens' | 'followsToolResult' | 'isPrefilled'>;

function readMessages(provider: ProviderName, messages: readonly unknown[], rule: ModelRule): MessageFacts {
  const { wording } = providers[provider];
  if (messages.length === 0)
    throw invalidRequest(
      "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
      'empty_array',
      'messages',
    );
  const prompt = new Prompt();
  /** The tool calls that still need a result. */
  let open = new Set<string>();
  messages.forEach((message, index) => {
    const at = `messages[${index}]`;
    if (!isFields(message)) throw wrongType(wording, at, 'object', message);
    const { role } = message;
    if (role === undefined) throw missingField(wording, `${at}.role`);
    if (typeof role !== 'string' || !ROLES.includes(role)) throw wrongValue(wording, `${at}.role`, role, ROLES);
    if (role === 'tool') closeToolCall(message, open, at);
    else if (open.size > 0) throw withoutResult(open);
    readContent(provider, message, at, prompt, rule);
    if (role === 'assistant') open = toolCallsOf(message, at, prompt);
  });
  if (open.size > 0) throw withoutResult(open);
  const last = (messages.at(-1) as Fields)['role'];
  if (last === 'assistant' && rule.prefill === false)
    throw invalidRequest('This model does not support a message of the assistant as the last message.');
  return {
    prompt: prompt.text,
    inputTokens: prompt.tokens,
    followsToolResult: last === 'tool',
    isPrefilled: last === 'assistant',
  };
}

function closeToolCall(message: Fields, open: Set<string>, at: string): void {
  const id = message['tool_call_id'];
  if (id === undefined) throw missingField('openai', `${at}.tool_call_id`);
  if (typeof id !== 'string') throw wrongType('openai', `${at}.tool_call_id`, 'string', id);
  if (!open.delete(id))
    throw invalidRequest(
      `Invalid parameter: messages with role 'tool' must be a response to a preceding message with 'tool_calls'.`,
      null,
      `${at}.role`,
    );
}

const withoutResult = (open: ReadonlySet<string>) =>
  invalidRequest(
    `An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: ${[...open].join(', ')}`,
    null,
    'messages',
  );

function toolCallsOf(message: Fields, at: string, prompt: Prompt): Set<string> {
  const ids = new Set<string>();
  const calls = message['tool_calls'] ?? [];
  if (!Array.isArray(calls)) throw wrongType('openai', `${at}.tool_calls`, 'array', calls);
  calls.forEach((call, index) => {
    const where = `${at}.tool_calls[${index}]`;
    if (!isFields(call) || typeof call['id'] !== 'string') throw missingField('openai', `${where}.id`);
    const called = call['function'];
    if (!isFields(called) || typeof called['name'] !== 'string') throw missingField('openai', `${where}.function`);
    if (typeof called['arguments'] !== 'string')
      throw wrongType('openai', `${where}.function.arguments`, 'string', called['arguments']);
    prompt.add(called['arguments']);
    ids.add(call['id']);
  });
  return ids;
}

const PARTS = ['text', 'image_url', 'input_audio', 'file', 'refusal'];

function readContent(provider: ProviderName, message: Fields, at: string, prompt: Prompt, rule: ModelRule): void {
  const { wording } = providers[provider];
  const { content, role } = message;
  if (typeof content === 'string') {
    prompt.add(content);
    return;
  }
  if (content === undefined || content === null) {
    if (role === 'assistant') return;
    throw wrongType(wording, `${at}.content`, 'string', content ?? null);
  }
  if (!Array.isArray(content)) throw wrongType(wording, `${at}.content`, 'string', content);
  content.forEach((part, index) => {
    const where = `${at}.content[${index}]`;
    if (!isFields(part)) throw wrongType(wording, where, 'object', part);
    if (!PARTS.includes(part['type'] as string)) throw wrongValue(wording, `${where}.type`, part['type'], PARTS);
    if (part['type'] === 'text') {
      if (typeof part['text'] !== 'string') throw wrongType(wording, `${where}.text`, 'string', part['text'] ?? null);
      prompt.add(part['text']);
    }
    if (part['type'] !== 'image_url') return;
    if (rule.images === false) throw wrongValue(wording, `${where}.type`, 'image_url', ['text']);
    checkImageUrl(isFields(part['image_url']) ? part['image_url']['url'] : undefined, `${where}.image_url.url`);
    prompt.addImage();
  });
}

function readTools(provider: ProviderName, tools: unknown): Tool[] {
  const { wording, rejectsUnknownParameters } = providers[provider];
  if (tools === undefined || tools === null) return [];
  return (tools as readonly unknown[]).map((tool, index) => {
    const at = `tools[${index}]`;
    if (!isFields(tool) || tool['type'] === undefined) throw missingField(wording, `${at}.type`);
    const described = tool['function'];
    if (!isFields(described)) throw missingField(wording, `${at}.function`);
    checkName(described['name'], `${at}.function.name`);
    const schema = described['parameters'] ?? { type: 'object', properties: {} };
    const strict = rejectsUnknownParameters && described['strict'] === true;
    checkSchema(schema, `function '${described['name']}'`, `${at}.function.parameters`, strict);
    return { name: described['name'], schema };
  });
}

const CHOICES = ['none', 'auto', 'required'];

function readToolChoice(
  provider: ProviderName,
  choice: unknown,
  tools: readonly Tool[],
  { forced_tool_choice }: ModelRule,
): ToolChoice {
  const { wording } = providers[provider];
  if (choice === undefined || choice === null) return tools.length > 0 ? 'auto' : 'none';
  if (tools.length === 0)
    throw invalidRequest("'tool_choice' is only allowed when 'tools' are specified.", null, 'tool_choice');
  if (forced_tool_choice === false && choice !== 'none' && choice !== 'auto')
    throw new Rejection({
      status: 400,
      message: 'This model does not support this tool_choice',
      type: 'invalid_request_error',
      code: 'invalid_request_error',
    });
  if (typeof choice === 'string') {
    if (!CHOICES.includes(choice)) throw wrongValue(wording, 'tool_choice', choice, CHOICES);
    return choice as ToolChoice;
  }
  const named = isFields(choice) && isFields(choice['function']) ? choice['function']['name'] : undefined;
  if (typeof named !== 'string') throw missingField(wording, 'tool_choice.function.name');
  return namedChoice(named, tools);
}

const FORMATS = ['text', 'json_object', 'json_schema'];

function readFormat(provider: ProviderName, format: unknown, prompt: string): ResponseFormat | undefined {
  const { wording, acceptsJsonSchema, requiresJsonWord, rejectsUnknownParameters } = providers[provider];
  if (!isFields(format)) return undefined;
  const { type } = format;
  if (!FORMATS.includes(type as string)) throw wrongValue(wording, 'response_format.type', type, FORMATS);
  if (type === 'text') return undefined;
  if (type === 'json_object') {
    if (requiresJsonWord) checkJsonWord(prompt, 'messages', 'response_format');
    return { type };
  }
  if (!acceptsJsonSchema) throw invalidRequest('This response_format type is unavailable now', 'invalid_request_error');
  const described = format['json_schema'];
  if (!isFields(described)) throw missingField(wording, 'response_format.json_schema');
  checkName(described['name'], 'response_format.json_schema.name');
  const strict = rejectsUnknownParameters && described['strict'] === true;
  checkSchema(described['schema'], `response_format '${described['name']}'`, 'response_format', strict);
  return { type: 'json_schema', schema: described['schema'] };
}

function readStop(provider: ProviderName, stop: unknown): readonly string[] {
  const { wording } = providers[provider];
  if (stop === undefined || stop === null) return [];
  const all = [stop].flat();
  const wrong = all.find((one) => typeof one !== 'string');
  if (wrong !== undefined) throw wrongType(wording, 'stop', 'string', wrong);
  if (all.length > 4 && provider === 'openai')
    throw invalidRequest(
      `Invalid 'stop': array too long. Expected an array with maximum length 4, but got an array with length ${all.length} instead.`,
      'array_above_max_length',
      'stop',
    );
  return all as string[];
}
