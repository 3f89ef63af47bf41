import type { Credential } from '../credential.js';
import type { ProviderName } from '../providers.js';
import { invalidRequest } from '../responses/provider_error.js';
import { type ModelRequest, Prompt, type ResponseFormat, type Tool, type ToolChoice } from './model_request.js';
import { checkModelParameters, type ModelRule } from './model_rules.js';
import { checkParameters, type Fields, isFields, MESSAGES_PARAMETERS } from './parameters.js';
import { missingField, wrongType, wrongValue } from './wording.js';

const WORDING = 'anthropic';

/** Reads a body of the Messages API. Throws a Rejection, as Anthropic words it. */
export function readMessagesRequest(
  provider: ProviderName,
  model: string,
  body: Fields,
  rule: ModelRule,
  credential: Credential,
): ModelRequest {
  checkParameters(body, MESSAGES_PARAMETERS, WORDING, true);
  checkModelParameters(body, rule, WORDING, undefined);
  const maxTokens = body['max_tokens'] as number;
  if (rule.max_output_tokens !== undefined && maxTokens > rule.max_output_tokens)
    throw invalidRequest(
      `max_tokens: ${maxTokens} > ${rule.max_output_tokens}, which is the maximum allowed number of output tokens for ${model}`,
    );
  checkThinking(body, maxTokens);
  const prompt = new Prompt();
  addSystem(body['system'], prompt);
  const tools = readTools(body['tools'], prompt);
  const facts = new Conversation(rule, credential, prompt).read(body['messages'] as readonly unknown[]);
  return {
    api: 'messages',
    provider,
    model,
    stream: body['stream'] === true,
    includeUsage: true,
    prompt: prompt.text,
    inputTokens: prompt.tokens,
    tools,
    toolChoice: readToolChoice(body, tools, rule),
    ...facts,
    format: readFormat(body),
    maxTokens,
    stop: readStop(body['stop_sequences']),
    showsReasoning: isThinking(body['thinking']),
    store: false,
    encryptsReasoning: false,
  };
}

const isThinking = (thinking: unknown) => isFields(thinking) && thinking['type'] !== 'disabled';

function checkThinking({ thinking, temperature, top_k: topK }: Fields, maxTokens: number): void {
  if (!isFields(thinking)) return;
  const types = ['enabled', 'disabled', 'adaptive'];
  if (!types.includes(thinking['type'] as string)) throw wrongValue(WORDING, 'thinking.type', thinking['type'], types);
  if (!isThinking(thinking)) return;
  if (thinking['type'] === 'enabled') checkBudget(thinking['budget_tokens'], maxTokens);
  if (temperature !== undefined && temperature !== null && temperature !== 1)
    throw invalidRequest('`temperature` may only be set to 1 when thinking is enabled.');
  if (topK !== undefined && topK !== null) throw invalidRequest('`top_k` must be unset when thinking is enabled.');
}

function checkBudget(budget: unknown, maxTokens: number): void {
  const name = 'thinking.enabled.budget_tokens';
  if (budget === undefined) throw missingField(WORDING, name);
  if (!Number.isInteger(budget)) throw wrongType(WORDING, name, 'integer', budget);
  if ((budget as number) < 1024) throw invalidRequest(`${name}: Input should be greater than or equal to 1024`);
  if ((budget as number) >= maxTokens)
    throw invalidRequest('`max_tokens` must be greater than `thinking.budget_tokens`.');
}

function addSystem(system: unknown, prompt: Prompt): void {
  if (system === undefined || system === null) return;
  if (typeof system === 'string') {
    prompt.add(system);
    return;
  }
  if (!Array.isArray(system)) throw wrongType(WORDING, 'system', 'string', system);
  system.forEach((block, index) => {
    if (!isFields(block) || typeof block['text'] !== 'string') throw missingField(WORDING, `system.${index}.text`);
    prompt.add(block['text']);
  });
}

/** Block types that are accepted and not checked: those of the tools that the provider runs. */
const SERVER_BLOCK = /^(server_tool_use|\w+_tool_result|search_result|container_upload|compaction|mcp_tool_use)$/;
const BLOCKS = ['text', 'image', 'document', 'tool_use', 'tool_result', 'thinking', 'redacted_thinking'];

/** Reads the messages of a request. */
class Conversation {
  /** The ids of the `tool_use` blocks in the message before. */
  private before = new Set<string>();
  private ids = new Set<string>();
  private results = new Set<string>();

  constructor(
    private readonly rule: ModelRule,
    private readonly credential: Credential,
    private readonly prompt: Prompt,
  ) {}

  read(messages: readonly unknown[]): Pick<ModelRequest, 'followsToolResult' | 'isPrefilled'> {
    if (messages.length === 0) throw invalidRequest('messages: at least one message is required');
    for (const [index, message] of messages.entries()) this.readMessage(message, index);
    const last = messages.at(-1) as Fields;
    const isPrefilled = last['role'] === 'assistant';
    if (isPrefilled) this.checkPrefill(last['content']);
    return { isPrefilled, followsToolResult: this.results.size > 0 };
  }

  private readMessage(message: unknown, index: number): void {
    if (!isFields(message)) throw wrongType(WORDING, `messages.${index}`, 'dictionary', message);
    const { role, content } = message;
    const roles = ['user', 'assistant'];
    if (!roles.includes(role as string)) throw wrongValue(WORDING, `messages.${index}.role`, role, roles);
    if (index === 0 && role !== 'user') throw invalidRequest('messages: first message must use the "user" role');
    this.before = this.ids;
    [this.ids, this.results] = [new Set(), new Set()];
    if (typeof content === 'string') this.addText(content, index, role === 'assistant');
    else if (Array.isArray(content))
      for (const [at, block] of content.entries()) this.readBlock(block, `messages.${index}.content.${at}`);
    else throw wrongType(WORDING, `messages.${index}.content`, 'list', content);
    const open = [...this.before].filter((id) => !this.results.has(id));
    if (open.length > 0)
      throw invalidRequest(
        `messages.${index - 1}: \`tool_use\` ids were found without \`tool_result\` blocks immediately after: ${open.join(', ')}. Each \`tool_use\` block must have a corresponding \`tool_result\` block in the next message.`,
      );
  }

  private addText(text: string, index: number, mayBeEmpty: boolean): void {
    if (text.length === 0 && !mayBeEmpty)
      throw invalidRequest(`messages.${index}: user messages must have non-empty content`);
    this.prompt.add(text);
  }

  private readBlock(block: unknown, at: string): void {
    if (!isFields(block)) throw wrongType(WORDING, at, 'dictionary', block);
    const { type } = block;
    if (typeof type !== 'string' || !(BLOCKS.includes(type) || SERVER_BLOCK.test(type)))
      throw wrongValue(WORDING, `${at}.type`, type, BLOCKS);
    if (type === 'text') this.readText(block, at);
    else if (type === 'image') this.readImage(block, at);
    else if (type === 'tool_use') this.readToolUse(block, at);
    else if (type === 'tool_result') this.readToolResult(block, at);
    else if (type === 'thinking') this.readThinking(block, at);
  }

  private readText({ text }: Fields, at: string): void {
    if (typeof text !== 'string') throw missingField(WORDING, `${at}.text.text`);
    if (text.length === 0) throw invalidRequest('messages: text content blocks must be non-empty');
    this.prompt.add(text);
  }

  private readImage({ source }: Fields, at: string): void {
    if (!isFields(source)) throw missingField(WORDING, `${at}.image.source`);
    if (this.rule.images === false) throw invalidRequest(`${at}.type: this model does not accept images`);
    const types = ['base64', 'url', 'file'];
    const type = source['type'];
    if (!types.includes(type as string)) throw wrongValue(WORDING, `${at}.image.source.type`, type, types);
    const field = { base64: 'data', url: 'url', file: 'file_id' }[type as 'base64' | 'url' | 'file'];
    if (typeof source[field] !== 'string') throw missingField(WORDING, `${at}.image.source.${type}.${field}`);
    this.prompt.addImage();
  }

  private readToolUse({ id, name, input }: Fields, at: string): void {
    if (typeof id !== 'string') throw missingField(WORDING, `${at}.tool_use.id`);
    if (typeof name !== 'string') throw missingField(WORDING, `${at}.tool_use.name`);
    if (!isFields(input)) throw wrongType(WORDING, `${at}.tool_use.input`, 'dictionary', input);
    this.prompt.add(JSON.stringify(input));
    this.ids.add(id);
  }

  private readToolResult({ tool_use_id: id, content }: Fields, at: string): void {
    if (typeof id !== 'string') throw missingField(WORDING, `${at}.tool_result.tool_use_id`);
    if (!this.before.has(id))
      throw invalidRequest(
        `${at}: unexpected \`tool_use_id\` found in \`tool_result\` blocks: ${id}. Each \`tool_result\` block must have a corresponding \`tool_use\` block in the previous message.`,
      );
    this.results.add(id);
    if (typeof content === 'string') this.prompt.add(content);
    else if (Array.isArray(content)) for (const part of content) this.addResultPart(part);
  }

  private addResultPart(part: unknown): void {
    if (isFields(part) && typeof part['text'] === 'string') this.prompt.add(part['text']);
    if (isFields(part) && part['type'] === 'image') this.prompt.addImage();
  }

  private readThinking({ thinking, signature }: Fields, at: string): void {
    if (typeof thinking !== 'string') throw missingField(WORDING, `${at}.thinking.thinking`);
    if (signature === undefined) throw missingField(WORDING, `${at}.thinking.signature`);
    if (!this.credential.hasSigned(thinking, signature))
      throw invalidRequest(
        `${at}: Invalid \`signature\` in \`thinking\` block. The block is bound to a different conversation.`,
      );
  }

  private checkPrefill(content: unknown): void {
    if (this.rule.prefill === false)
      throw invalidRequest(
        'This model does not support assistant message prefill. The conversation must end with a user message.',
      );
    const last = Array.isArray(content) ? (content.at(-1) as Fields | undefined)?.['text'] : content;
    if (typeof last === 'string' && /\s$/.test(last))
      throw invalidRequest('messages: final assistant content cannot end with trailing whitespace');
  }
}

function readTools(tools: unknown, prompt: Prompt): Tool[] {
  if (!Array.isArray(tools)) return [];
  return tools.flatMap((tool, index) => {
    const at = `tools.${index}`;
    if (!isFields(tool)) throw wrongType(WORDING, at, 'dictionary', tool);
    // Other types are tools that the provider runs.
    if (tool['type'] !== undefined && tool['type'] !== 'custom') return [];
    const { name, input_schema: schema, description } = tool;
    if (typeof name !== 'string') throw missingField(WORDING, `${at}.custom.name`);
    if (!/^[a-zA-Z0-9_-]{1,128}$/.test(name))
      throw invalidRequest(`${at}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'`);
    if (schema === undefined) throw missingField(WORDING, `${at}.custom.input_schema`);
    if (!isFields(schema)) throw wrongType(WORDING, `${at}.custom.input_schema`, 'dictionary', schema);
    if (schema['type'] !== 'object')
      throw wrongValue(WORDING, `${at}.custom.input_schema.type`, schema['type'], ['object']);
    if (typeof description === 'string') prompt.add(description);
    return [{ name, schema }];
  });
}

function readToolChoice(
  { tool_choice: choice, thinking }: Fields,
  tools: readonly Tool[],
  rule: ModelRule,
): ToolChoice {
  if (!isFields(choice)) return tools.length > 0 ? 'auto' : 'none';
  const types = ['auto', 'any', 'tool', 'none'];
  const { type, name } = choice;
  if (!types.includes(type as string)) throw wrongValue(WORDING, 'tool_choice', type, types);
  if (type === 'none' || type === 'auto') return type;
  if (rule.forced_tool_choice === false)
    throw invalidRequest(`tool_choice: \`${type}\` is not supported by this model; use \`auto\` or \`none\``);
  if (isThinking(thinking)) throw invalidRequest('Thinking may not be enabled when tool_choice forces tool use.');
  if (type === 'any') {
    if (tools.length === 0) throw invalidRequest('tool_choice: tools must be provided with `any`');
    return 'required';
  }
  if (typeof name !== 'string') throw missingField(WORDING, 'tool_choice.tool.name');
  if (!tools.some((tool) => tool.name === name)) throw invalidRequest(`Tool '${name}' not found in provided tools`);
  return { name };
}

/** Structured output: `output_config.format`, or `output_format` of its beta. */
function readFormat({ output_config: config, output_format: beta }: Fields): ResponseFormat | undefined {
  const format = isFields(config) && isFields(config['format']) ? config['format'] : beta;
  if (!isFields(format)) return undefined;
  if (format['type'] !== 'json_schema')
    throw wrongValue(WORDING, 'output_config.format.type', format['type'], ['json_schema']);
  if (!isFields(format['schema'])) throw missingField(WORDING, 'output_config.format.schema');
  return { type: 'json_schema', schema: format['schema'] };
}

function readStop(stop: unknown): readonly string[] {
  const all = Array.isArray(stop) ? stop : [];
  const wrong = all.findIndex((one) => typeof one !== 'string');
  if (wrong >= 0) throw wrongType(WORDING, `stop_sequences.${wrong}`, 'string', all[wrong]);
  const blank = all.findIndex((one) => (one as string).trim() === '');
  if (blank >= 0) throw invalidRequest('stop_sequences: each stop sequence must contain non-whitespace');
  return all as string[];
}
