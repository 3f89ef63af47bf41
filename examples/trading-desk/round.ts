import { setTimeout as delay } from 'node:timers/promises';
import type { ResidentAgentLLM, WithLanguageModel } from '@agentllm/client/ai';
import { generateText } from 'ai';
import { changeModel } from './desk_configs.js';
import { market, reports } from './market.js';
import type { Providers } from './providers.js';

const TASKS: Readonly<Record<string, string>> = {
  market_analyst: 'Describe the trend of the price.',
  social_analyst: 'Describe how much attention the company gets.',
  news_analyst: 'Describe what the news mean for the price.',
  fundamentals_analyst: 'Describe the state of the business.',
  bull_researcher: 'Make the case for buying, and respond to the other side.',
  bear_researcher: 'Make the case against buying, and respond to the other side.',
  research_manager: 'Judge the debate and write a plan.',
  trader: 'Propose a transaction that follows the plan.',
  risky_analyst: 'Argue for more risk than the proposal has.',
  safe_analyst: 'Argue for less risk than the proposal has.',
  neutral_analyst: 'Weigh both sides.',
  risk_manager: 'Decide: BUY, SELL or HOLD, with a size and a stop.',
};

/** The circuit breaker of a failing model stays open for 10 s. */
const BREAKER_MS = 10_500;

/** One decision of the desk: what the agents have said so far is the input of the next ones. */
export class Round {
  private readonly transcript: string[] = [];

  constructor(
    private readonly client: ResidentAgentLLM<WithLanguageModel>,
    private readonly providers: Providers,
    private readonly print: (line: string) => void,
  ) {}

  /** Resolves with the decision of the risk manager. */
  async run(): Promise<string> {
    this.print(`\n1. Analysts read the data of ${market.symbol} until ${market.as_of}`);
    const material = reports();
    const texts = await Promise.all(Object.entries(material).map(([name, text]) => this.ask(name, text)));
    this.transcript.push(...texts);
    await this.debate();
    this.print('\n3. The trader makes a proposal');
    await this.speak('trader');
    await this.discussRisk();
    this.print('\n5. The risk manager decides');
    return this.speak('risk_manager');
  }

  private async debate(): Promise<void> {
    this.print('\n2. Researchers debate');
    await this.speak('bull_researcher');
    await this.speak('bear_researcher');
    const revision = await changeModel(this.client, 'bull_researcher', 'deepseek/deepseek-v4-pro');
    this.print(`  ---- config change: bull_researcher now uses deepseek/deepseek-v4-pro, revision ${revision}`);
    await this.speak('bull_researcher');
    await this.speak('bear_researcher');
    await this.speak('research_manager');
  }

  private async discussRisk(): Promise<void> {
    this.print('\n4. Risk analysts discuss the proposal');
    await this.providers.fail('deepseek');
    this.print('  ---- provider fails: deepseek is overloaded');
    for (const name of ['risky_analyst', 'safe_analyst', 'neutral_analyst']) await this.speak(name);
    await this.providers.recover();
    this.print('  ---- provider recovers; its circuit breaker is still open');
    await this.speak('risky_analyst');
    this.print(`  ---- ${BREAKER_MS / 1000} s later`);
    await delay(BREAKER_MS);
    for (const name of ['safe_analyst', 'neutral_analyst']) await this.speak(name);
  }

  /** Asks an agent with everything that was said so far as input. */
  private async speak(name: string): Promise<string> {
    const text = await this.ask(name, this.transcript.join('\n\n'));
    this.transcript.push(text);
    return text;
  }

  /** The one line that an agent needs: its model, with the configuration that it has at this moment. */
  private async ask(name: string, prompt: string): Promise<string> {
    const model = this.client.agent(name).languageModel({ fetch: this.providers.fetch, deadlineMs: 120_000 });
    const system = `You are the ${name} of a trading desk. ${TASKS[name]} Use at most three sentences.`;
    const { text } = await generateText({ model, system, prompt });
    return `${name}: ${text}`;
  }
}
