// The program as users call it: exit codes, the one line of an error, and that nothing is half written.
#include <fstream>

#include "app/program.h"
#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "records/made.h"
#include "text/tokenizer.h"

namespace nibble {
namespace {

void overwrite(const fs::path& file, std::streamoff at, const std::string& bytes) {
  std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
  f.seekp(at);
  f.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

TEST_F(Cli, HelpShowsAnExampleForEachCommand) {
  for (const char* command : {"inspect", "measure", "plan", "quantize", "verify", "eval", "compare", "report",
                              "card", "generate", "trace"}) {
    const Outcome o = nibble(std::string(command) + " --help");
    EXPECT_EQ(o.code, 0);
    EXPECT_THAT(o.out, HasSubstr(std::string("Example:\n  nibble ") + command));
  }
  EXPECT_EQ(nibble("--version").code, 0);
}

TEST_F(Cli, BadArguments) {
  expect_error("", "subcommand");
  expect_error("frobnicate", "frobnicate");
  expect_error("inspect", "MODEL");
  expect_error("inspect --threads 0 " + kModel, "--threads");
  expect_error("eval --compute f64 " + kModel, "--compute");
}

TEST_F(Cli, ModelsThatAreNone) {
  expect_error("inspect " + temp("none"), temp("none"));
  expect_error("inspect Some/Model-That-Is-Not-There", "hf download Some/Model-That-Is-Not-There");
  const fs::path model = copy_model("family");
  io::Json config = io::read_json(model / "config.json");
  config["model_type"] = "gpt_9";
  io::write_file(model / "config.json", io::dump_json(config));
  expect_error("inspect " + model.string(), "gpt_9", "known: ", "qwen2_vl");
}

TEST_F(Cli, DamagedTensors) {
  const fs::path model = copy_model("damaged");
  const std::string shard = "model-00002-of-00003.safetensors";
  fs::resize_file(model / shard, fs::file_size(model / shard) - 100);
  expect_error("inspect " + model.string(), shard);
  fs::remove(model / shard);
  expect_error("inspect " + model.string(), shard);
}

TEST_F(Cli, WrongShape) {
  const fs::path model = copy_model("shape");
  io::Json config = io::read_json(model / "config.json");
  config["intermediate_size"] = 513;
  io::write_file(model / "config.json", io::dump_json(config));
  expect_error("inspect " + model.string(), "model.layers.0.mlp.gate_proj.weight", "[512, 192]",
               "[513, 192]");
}

TEST_F(Cli, NonfiniteWeightsAreRefusedByNameAndOffset) {
  const fs::path model = copy_model("nan");
  const io::Checkpoint checkpoint(model);
  const std::string name = "model.layers.4.mlp.down_proj.weight";
  const int64_t begin = checkpoint.tensors().at(name).begin;
  overwrite(checkpoint.file_of(name), begin + 2 * 77, std::string("\xc0\x7f", 2));  // a bf16 NaN
  const std::string arguments = "quantize " + model.string() + " --policy all -o " + temp("out");
  expect_error(arguments, name, "element 77", fmt::format("byte {}", begin + 154), "--allow-nonfinite");
  EXPECT_FALSE(fs::exists(temp("out")));
  EXPECT_FALSE(fs::exists(temp("out.partial")));
  EXPECT_EQ(nibble(arguments + " --allow-nonfinite").code, 0);
  EXPECT_FALSE(io::Checkpoint(temp("out")).has(name + ".absmax")) << "a weight that cannot be rounded stays";
  expect_error("quantize " + model.string() +
                   " --budget 20% --data " NIBBLE_ROOT "/pictures/calibration -o " + temp("dynamic"),
               name, "element 77");
  EXPECT_EQ(
      nibble("quantize " + model.string() + " --budget 20% --allow-nonfinite -o " + temp("dynamic")).code, 0);
  overwrite(checkpoint.file_of(name), begin + 2 * 77, std::string("\x80\xff", 2));  // minus infinity
  expect_error("quantize " + model.string() + " --policy all -o " + temp("infinite"), name, "element 77");
}

TEST_F(Cli, PicturesAndPrompts) {
  io::write_file(temp("picture.png"), "this is no picture");
  expect_error("generate " + kModel + " --prompt Hi --image " + temp("picture.png"), "picture.png");
  expect_error("generate " + kModel + " --prompt Hi --image " + temp("none.png"), "none.png");
  expect_error("generate " + kModel + " --prompt ''", "empty");
  expect_error("generate " + kModel + " --raw --prompt Hi --image " + kPicture, "<|image_pad|>");
}

TEST_F(Cli, TheFamilysChatFormatIsSaidWhereItServes) {
  const fs::path model = copy_model("bare");
  for (const char* name : {"chat_template.jinja", "chat_template.json"}) fs::remove(model / name);
  io::Json config = io::read_json(model / "tokenizer_config.json");
  config.erase("chat_template");
  io::write_file(model / "tokenizer_config.json", io::dump_json(config));
  const std::string rest = " --prompt Hi --max-new-tokens 2", note = "no chat template";
  EXPECT_THAT(nibble("generate " + model.string() + rest).err, HasSubstr(note));
  EXPECT_THAT(nibble("generate " + model.string() + " --raw" + rest).err, testing::Not(HasSubstr(note)));
  EXPECT_THAT(nibble("generate " + kModel + rest).err, testing::Not(HasSubstr(note)));
}

TEST_F(Cli, AnAnswerEndsWhereTheModelTakesNoMore) {
  const fs::path model = copy_model("short");
  io::Json config = io::read_json(model / "config.json");
  const std::string prompt = "The image";
  const auto tokens = std::ssize(text::Tokenizer::load(model / "tokenizer.json").encode(prompt, true));
  config["max_position_embeddings"] = tokens + 3;
  io::write_file(model / "config.json", io::dump_json(config));
  const std::string rest = fmt::format(" --compute f32 --raw --prompt '{}' --max-new-tokens ", prompt);
  const Outcome whole = nibble("generate " + kModel + rest + "9"),
                four = nibble("generate " + kModel + rest + "4"),
                ended = nibble("generate " + model.string() + rest + "9");
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_EQ(ended.out, four.out) << "tokens 1 to 4 are predicted from sequences that fit";
  EXPECT_NE(ended.out, whole.out);
  // The answer that the model gives itself is judged as it was cut.
  io::write_file(temp("open.jsonl"), R"({"prompt": "Tell me a long story."})");
  const std::string eval = "eval " + model.string() + " --compute f32 --json - --data " + temp("open.jsonl");
  config["max_position_embeddings"] = 1;
  io::write_file(model / "config.json", io::dump_json(config));
  const Outcome refused = nibble(eval);
  EXPECT_EQ(refused.code, 2);
  const size_t at = refused.err.find("the prompt has ");
  ASSERT_NE(at, std::string::npos) << refused.err;
  config["max_position_embeddings"] = std::stoi(refused.err.substr(at + 15)) + 1;
  io::write_file(model / "config.json", io::dump_json(config));
  const Outcome judged = nibble(eval);
  ASSERT_EQ(judged.code, 0) << judged.err;
  EXPECT_EQ(io::parse_json(judged.out, "eval")["samples"][0]["positions"], 2);
}

TEST_F(Cli, NamesThatAreNoText) {
  const std::string out = temp("o\xff");
  const Outcome o = nibble("quantize " + kModel + " --policy all -o '" + out + "'");
  ASSERT_EQ(o.code, 0) << o.err;
  const std::string said = io::read_json(fs::path(out) / "nibble.json").at("command");
  EXPECT_THAT(said, testing::EndsWith("/o\\xff'")) << said;
  EXPECT_THAT(said, HasSubstr(" --policy all -o $'/")) << said;
}

TEST_F(Cli, ModelsOfAnotherOriginAreNotCompared) {
  const std::string tiny = NIBBLE_ROOT "/tests/data/goldens/families/llama";
  io::write_file(temp("text.jsonl"), R"({"text": "A green train with one car."})");
  const std::string data = " --window 16 --data " + temp("text.jsonl");
  expect_error("eval " + kModel + " --against " + tiny + data, "qwen2_vl", "llama", "one origin");
  const fs::path model = copy_model("renamed");
  io::Json tokenizer = io::read_json(model / "tokenizer.json");
  auto& vocabulary = tokenizer["model"]["vocab"];
  const auto a = vocabulary["A"], b = vocabulary["B"];
  vocabulary["A"] = b;
  vocabulary["B"] = a;
  io::write_file(model / "tokenizer.json", io::dump_json(tokenizer));
  expect_error("eval " + kModel + " --against " + model.string() + data, "\"A\" to ", "\"B\" to ",
               "one origin");
  io::write_file(temp("open.jsonl"), R"({"prompt": "A or B?"})");
  expect_error("eval " + kModel + " --against " + model.string() + " --data " + temp("open.jsonl"),
               "one origin");
  expect_error("compare " + kModel + " " + model.string() + data, "one origin");
}

TEST_F(Cli, LogitsThatAreNoNumbersAreLaidToTheirTensor) {
  const fs::path model = copy_model("nan");
  const io::Checkpoint checkpoint(model);
  const std::string name = "model.layers.4.input_layernorm.weight";
  overwrite(checkpoint.file_of(name), checkpoint.tensors().at(name).begin + 2 * 3,
            std::string("\xc0\x7f", 2));
  io::write_file(temp("text.jsonl"), R"({"text": "A green train with one car."})");
  const std::string data = " --data " + temp("text.jsonl");
  for (const std::string& command : {"eval " + model.string(), "compare " + kModel + " " + model.string(),
                                     "eval " + kModel + " --against " + model.string()})
    expect_error(command + data, model.string(), "text.jsonl:1", name, "element 3");
  expect_error("eval " + model.string() + " --limit 1 --mmlu " NIBBLE_ROOT "/tests/eval/mmlu", name,
               "_test.csv:1");
}

TEST_F(Cli, RowsThatAreNoNumbersAreLaidToTheirTensor) {
  io::write_file(temp("one.jsonl"),
                 "{\"image\": \"" + kPicture + "\", \"answer\": \"A green train with one car.\"}");
  for (const std::string name : {"model.layers.0.self_attn.q_proj.weight",
                                 "model.layers.0.input_layernorm.weight", "model.embed_tokens.weight"}) {
    const fs::path model = copy_model(name);
    const io::Checkpoint checkpoint(model);
    // The whole first half: of the embedding, that has rows of what the text says.
    const io::TensorInfo info = checkpoint.tensors().at(name);
    std::string values;
    while (std::ssize(values) < (info.end - info.begin) / 2) values += std::string("\xc0\x7f", 2);
    overwrite(checkpoint.file_of(name), info.begin, values);
    expect_error(
        "measure " + model.string() + " --effort none --data " + temp("one.jsonl") + " -o " + temp("m.json"),
        checkpoint.file_of(name).string(), "tensor " + name, "element 0");
  }
}

TEST_F(Cli, Data) {
  expect_error("measure " + kModel + " -o " + temp("m.json") + " --data " + temp("none.jsonl"), "none.jsonl");
  io::write_file(temp("bad.jsonl"), "{\"text\": \"fine\"}\n{\"text\": 4}\n");
  expect_error("measure " + kModel + " -o " + temp("m.json") + " --data " + temp("bad.jsonl"), "bad.jsonl:2");
  io::write_file(temp("missing.jsonl"), "{\"image\": \"gone.png\", \"prompt\": \"What?\"}\n");
  expect_error("measure " + kModel + " -o " + temp("m.json") + " --data " + temp("missing.jsonl"),
               "missing.jsonl:1", "gone.png");
  EXPECT_FALSE(fs::exists(temp("m.json")));
}

TEST_F(Cli, AMissingTokenizerIsSaidOnce) {
  const fs::path model = copy_model("bare");
  fs::remove(model / "tokenizer.json");
  const std::string quantize = "quantize " + model.string() + " -o " + temp("q");
  expect_error(quantize, "bare/tokenizer.json: is not there", "copy it");
  const Outcome o = nibble(quantize + " --policy all");
  EXPECT_EQ(o.code, 0);
  EXPECT_THAT(o.err, HasSubstr("bare/tokenizer.json: is not there, nor will it be"));
}

TEST_F(Cli, Transformers5Config) {
  const fs::path model = copy_model("v5");
  fs::copy_file(NIBBLE_ROOT "/tests/interop/config.v5.json", model / "config.json",
                fs::copy_options::overwrite_existing);
  ASSERT_EQ(nibble("quantize " + model.string() + " --policy all -o " + temp("q")).code, 0);
  const auto config = io::read_json(fs::path(temp("q")) / "config.json");
  EXPECT_EQ(config["text_config"]["rope_theta"], 1000000.0);
  EXPECT_EQ(config["rope_scaling"]["mrope_section"],
            config["text_config"]["rope_parameters"]["mrope_section"]);
  EXPECT_EQ(config["hidden_size"], 192);
  EXPECT_EQ(config["torch_dtype"], "bfloat16");
  const std::string say = " --prompt 'Describe this image.' --image " + kPicture;
  EXPECT_EQ(nibble("generate " + model.string() + say).out, nibble("generate " + kModel + say).out);
}

TEST_F(Cli, TextsTooShortToPredictAnything) {
  io::write_file(temp("short.jsonl"), "{\"text\": \"a\"}\n");
  const std::string measure = "measure -o " + temp("m.json") + " ";
  for (const std::string& command : {std::string("compare "), std::string("eval "), measure})
    expect_error(command + kModel + " --data " + temp("short.jsonl"), "short.jsonl", "two tokens");
}

TEST_F(Cli, TextIsJudgedInWindows) {
  const std::string data = " --compute f32 --data " NIBBLE_ROOT "/tests/eval/texts.jsonl --window 20";
  ASSERT_EQ(nibble("quantize " + kModel + " --policy all -o " + temp("all")).code, 0);
  const Outcome o =
      nibble("eval " + temp("all") + data + " --against " + kModel + " --json " + temp("e.json"));
  ASSERT_EQ(o.code, 0) << o.err;
  for (const char* row : {"14 windows (225 tokens predicted, 457 bytes)", "text loss", "perplexity",
                          "loss per byte", "text KL", "text agreement"})
    EXPECT_THAT(o.out, HasSubstr(row));
  EXPECT_THAT(o.out, testing::Not(HasSubstr("exact")));
  const io::Json record = io::read_json(temp("e.json"));
  EXPECT_GT(record["texts"]["kl"]["mean"].get<double>(), 0);
  EXPECT_FALSE(record.contains("answers"));

  const Outcome table = nibble("compare --json " + temp("all") + " " + kModel + data);
  ASSERT_EQ(table.code, 0) << table.err;
  const io::Json rows = io::parse_json(table.out, "compare");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0]["description"], "16 bit");
  EXPECT_EQ(rows[1]["evaluation"]["texts"], record["texts"]) << "compare and eval judge alike";
  EXPECT_EQ(rows[1]["evaluation"]["samples"], record["samples"]);
  const Outcome text = nibble("compare " + temp("all") + " " + kModel + data);
  EXPECT_THAT(text.out, AllOf(HasSubstr("KL, texts"), HasSubstr("Perplexity")));
  EXPECT_THAT(text.out, AllOf(testing::Not(HasSubstr("Result")), testing::Not(HasSubstr("Exact"))));
}

TEST_F(Cli, MultipleChoice) {
  const std::string mmlu = NIBBLE_ROOT "/tests/eval/mmlu", options = " --compute f32 --mmlu " + mmlu;
  ASSERT_EQ(nibble("quantize " + kModel + " --policy all -o " + temp("all")).code, 0);
  const Outcome o = nibble("eval " + temp("all") + options + " --shots 2 --against " + kModel + " --json " +
                           temp("c.json"));
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out,
              AllOf(HasSubstr("social sciences"), HasSubstr("counting_things"), HasSubstr("same choice")));
  const io::Json record = io::read_json(temp("c.json"));
  EXPECT_EQ(record["accuracy"]["total"], 9);
  EXPECT_EQ(record["shots"], 2);
  EXPECT_EQ(record["special_tokens"], true);

  const Outcome table =
      nibble("compare --json " + kModel + " " + temp("all") + options + " --shots 2 --no-special-tokens");
  ASSERT_EQ(table.code, 0) << table.err;
  const io::Json rows = io::parse_json(table.out, "compare");
  EXPECT_FALSE(rows[1].contains("evaluation")) << "no --data, no shipped data either";
  EXPECT_EQ(rows[1]["multiple_choice"]["special_tokens"], false);
  EXPECT_EQ(rows[1]["multiple_choice"]["subjects"], record["subjects"]) << "this tokenizer adds none";
  const Outcome text = nibble("compare " + kModel + options + " --limit 1");
  EXPECT_THAT(text.out, AllOf(HasSubstr("Right choices"), HasSubstr(" of 3\n")));

  expect_error("eval " + kModel + " --mmlu " + temp("none"), temp("none"), "no such folder");
  expect_error("eval " + kModel + " --shots 3", "--shots", "--mmlu");
  expect_error("eval " + kModel + options + " --limit 0", "--limit");
  expect_error("eval " + kModel + options + " --data " + mmlu, "--mmlu", "--data");
  fs::create_directories(temp("m/dev"));
  fs::create_directories(temp("m/test"));
  io::write_file(temp("m/dev/x_dev.csv"), "q,1,2,3,4,A\n");
  io::write_file(temp("m/test/x_test.csv"), "q,1,2,3,4,A\n\nq,1,2,3,A\n");
  expect_error("eval " + kModel + " --mmlu " + temp("m"), "x_test.csv:3", "5 columns");
}

TEST_F(Cli, OwnAnswersAreAsLongAsThoseOfTheModels) {
  io::write_file(temp("open.jsonl"),
                 io::Json{{"image", kPicture}, {"prompt", "Describe this image."}}.dump());
  const Outcome o =
      nibble("eval " + kModel + " --compute f32 --max-new-tokens 4 --json - --data " + temp("open.jsonl"));
  ASSERT_EQ(o.code, 0) << o.err;
  const io::Json sample = io::parse_json(o.out, "eval")["samples"][0];
  EXPECT_EQ(sample["output"], sample["expected"]);
  EXPECT_EQ(sample["exact"], true);
  EXPECT_EQ(sample["positions"], 4);
}

TEST_F(Cli, PlansOfAnotherModelAndPoliciesAreRefused) {
  ASSERT_EQ(nibble("quantize " + kModel + " --policy none -o " + temp("copy")).code, 0);
  expect_error("quantize " + kModel + " --policy best -o " + temp("x"), "best", "dynamic");
  expect_error("quantize " + kModel + " --policy random:3 --budget 1MiB -o " + temp("x"), "1MiB");
  io::write_file(temp("list.txt"), "visual.blocks.77\n");
  expect_error("quantize " + kModel + " --policy list:" + temp("list.txt") + " -o " + temp("x"),
               "visual.blocks.77");
  io::write_file(temp("plan.json"), "{}");
  expect_error("quantize " + kModel + " --plan " + temp("plan.json") + " -o " + temp("x"), "plan.json");
}

TEST_F(Cli, ContradictionsAreFoundBeforeMeasuring) {
  const std::string start = "quantize " + kModel + " -o " + temp("out");
  expect_error(start + " --policy weight-error --budget kl:0.001", "kl:0.001", "policy dynamic");
  expect_error(start + " --effort none --budget match", "match", "--effort none");
  expect_error(start + " --policy int8 --rounding feedback", "int8");
  expect_error("compare " + kModel + " --policies weight-error --budget kl:0.001", "policy dynamic");
  expect_error("compare " + kModel + " --policies list:/nowhere,dynamic", "/nowhere");
  expect_error("compare " + kModel + " --policies all,int8,all", "--policies names all more than once");
  expect_error("measure " + kModel + " -o " + temp("m.json") +
                   " --damping 1e308,0 --data " NIBBLE_ROOT "/texts/evaluation.jsonl",
               "--damping", "above");
  for (const char* option : {"--effort full", "--mix 0.3", "--weights 1,1", "--memory 1GiB", "--no-guard",
                             "--no-verify", "--damping 0.1,0.1", "--verify texts"})
    expect_error(start + " --policy all " + option, "changes nothing for policy all");
  expect_error(start + " --effort none --verify " NIBBLE_ROOT "/texts/evaluation.jsonl",
               "without groups run alone");
  const std::string tiny = NIBBLE_ROOT "/tests/data/goldens/families/llama";
  ASSERT_EQ(nibble("quantize " + tiny + " --policy all -o " + temp("llama")).code, 0);
  expect_error(start + " --plan " + temp("llama") + "/nibble.json", "made for " + tiny);
}

TEST_F(Cli, WithLittleMemoryTheWidestInputsDoWithoutMatrices) {
  io::write_file(temp("texts.jsonl"), R"({"text": "A green train with one car."})");
  const std::string start = "quantize " + kModel + " -o " + temp("out");
  const Outcome result =
      nibble(start + " --policy all --rounding feedback --memory 4MiB --data " + temp("texts.jsonl"));
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("inputs wider than"));
  EXPECT_THAT(result.err, HasSubstr("(--memory 4.00 MiB)"));
  const auto plan = records::read_any_plan(temp("out") + "/nibble.json");
  EXPECT_GT(plan.rounding.widest, 1);
  const Outcome again =
      nibble("quantize " + kModel + " -o " + temp("again") + " --plan " + temp("out") + "/nibble.json");
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.err, HasSubstr("of the run that made the plan"));
  EXPECT_EQ(io::read_file(temp("again") + "/model.safetensors"),
            io::read_file(temp("out") + "/model.safetensors"));
}

TEST_F(Cli, RecordsOfOtherWeightsAreSaid) {
  io::write_file(temp("texts.jsonl"), R"({"text": "A green train with one car."})");
  const std::string rest = " --data " + temp("texts.jsonl") + " --effort none --rounding plain -o ";
  ASSERT_EQ(nibble("measure " + kModel + rest + temp("m.json")).code, 0);
  const fs::path model = copy_model("other");
  const io::Checkpoint checkpoint(model);
  overwrite(checkpoint.file_of("model.norm.weight"), checkpoint.tensors().at("model.norm.weight").begin,
            std::string("\x00\x40", 2));
  const std::string measured = " --measurements " + temp("m.json") + " --policy activation-error -o ";
  EXPECT_THAT(nibble("quantize " + kModel + measured + temp("same")).err,
              testing::Not(HasSubstr("other weights")));
  const Outcome o = nibble("quantize " + model.string() + measured + temp("out"));
  EXPECT_EQ(o.code, 0);
  EXPECT_THAT(o.err, AllOf(HasSubstr("other weights"), HasSubstr(kModel)));
  EXPECT_EQ(io::read_json(fs::path(temp("out")) / "nibble.json")["plan"]["model"], model.string());
  // The plan of a written checkpoint is a plan.
  const Outcome again =
      nibble("quantize " + kModel + " --plan " + temp("out") + "/nibble.json -o " + temp("again"));
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.err, HasSubstr("the plan may not hold: made from other weights"));
}

TEST_F(Cli, OptionsThatWouldChangeNothingAreRefused) {
  for (const char* option : {"--damping 0.1,0.1", "--mix 0.5", "--no-guard", "--effort full", "--fuse off",
                             "--no-verify", "--memory 1GiB", "--window 64", "--compute f32"}) {
    for (const char* record : {"--plan", "--measurements"})
      expect_error(fmt::format("quantize {} -o {} {} x.json {}", kModel, temp("out"), record, option),
                   record);
  }
  expect_error("quantize " + kModel + " -o " + temp("out") + " --plan x.json --rounding plain", "--plan");
}

TEST_F(Cli, OptionsThatTheResultDoesNotDependOnAreRefused) {
  const std::string plan =
      "plan " NIBBLE_ROOT "/tests/plan/goldens/measurements.json -o " + temp("plan.json");
  expect_error(plan + " --as transformers --json", "--json", "--as");
  expect_error(plan + " --explain --json", "--json", "--explain");
  EXPECT_FALSE(fs::exists(temp("plan.json")));
  EXPECT_EQ(nibble(plan + " --explain").code, 0);
  EXPECT_EQ(nibble(plan + " --json").code, 0);
}

TEST_F(Cli, PromptsThatTheModelDoesNotTakeAreNamedByLine) {
  std::string text;
  for (int i = 0; i < 2000; ++i) text += " train";
  io::write_file(temp("long.jsonl"), "{\"prompt\": \"Hello\", \"answer\": \"A\"}\n{\"prompt\": \"" + text +
                                         "\", \"answer\": \"A\"}\n");
  const fs::path model = copy_model("short");
  io::Json config = io::read_json(model / "config.json");
  io::Json& holder = config.contains("text_config") ? config["text_config"] : config;
  holder["max_position_embeddings"] = 512;
  if (config.contains("max_position_embeddings")) config["max_position_embeddings"] = 512;
  io::write_file(model / "config.json", io::dump_json(config));
  expect_error("eval " + model.string() + " --data " + temp("long.jsonl"),
               temp("long.jsonl") + ":2: the prompt has", "takes 512");
}

TEST_F(Cli, NumbersAndSizesThatAreNone) {
  const std::string start = "quantize " + kModel + " -o " + temp("out");
  expect_error(start + " --memory 0", "--memory", "0 is no size", "nibble quantize --help");
  expect_error(start + " --memory 4XB", "4XB is no size");
  expect_error(start + " --mix nan", "nan is no number from 0 to 1");
  expect_error(start + " --threads 0", "0 is no whole number from 1 to 4096");
  expect_error(start + " --effort most", "most is none of none, auto, full");
  expect_error(start + " --budget 1GiBs", "1GiBs", "kl:0.001", "match");
  expect_error(start + " --budget kl:x", "kl:x");
  expect_error("compare " + kModel + " --budget 5bpx", "5bpx");
  expect_error("measure " + kModel + " -o " + temp("m.json") + " --data texts --data ./texts", "given twice");
  EXPECT_EQ(nibble(start + " --policy all --max-shard-size 0.5MB").code, 0);
  EXPECT_TRUE(fs::exists(fs::path(temp("out")) / "model.safetensors.index.json"));
}

TEST_F(Cli, WhatWasNotDoneIsSaid) {
  io::write_file(temp("few.jsonl"), R"({"text": "A green train with one car."})");
  const Outcome few =
      nibble("quantize " + kModel + " -o " + temp("few") + " --no-guard --data " + temp("few.jsonl"));
  EXPECT_EQ(few.code, 0) << few.err;
  EXPECT_THAT(few.err,
              AllOf(HasSubstr("fewer than 8 inputs"), HasSubstr("what reads pictures is not measured")));
  const Outcome wide =
      nibble("quantize " + kModel + " -o " + temp("wide") + " --policy weight-error --budget 400%");
  EXPECT_EQ(wide.code, 0) << wide.err;
  EXPECT_THAT(wide.err, HasSubstr("nothing is quantized"));
  const std::string llama = NIBBLE_ROOT "/tests/data/goldens/families/llama";
  const Outcome text = nibble("quantize " + llama + " -o " + temp("text") + " --policy vision");
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_THAT(text.err, HasSubstr("policy vision keeps no linear"));
}

// Four bits can break what reads pictures while texts stay as they are.
TEST_F(Cli, WithoutPicturesThoseOfNibbleCount) {
  io::write_file(temp("few.jsonl"), R"({"text": "A green train with one car."})");
  const Outcome o = nibble("measure " + kModel + " --effort none --rounding plain --data " +
                           temp("few.jsonl") + " -o " + temp("m.json"));
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.err, HasSubstr("those that nibble ships are added"));
  const io::Json record = io::read_json(temp("m.json"));
  EXPECT_EQ(record["data"].size(), 2u);
  EXPECT_EQ(record["samples"], 49);
  EXPECT_GT(record["rows"]["vision"], 0);
  fs::create_directory(temp("photos"));
  fs::copy(kPicture, temp("photos/a.png"));
  io::write_file(temp("photos/b.gif"), "GIF89a");
  const Outcome as =
      nibble("plan " + temp("m.json") + " --policy activation-error --budget 10% --as transformers");
  EXPECT_EQ(as.code, 0) << as.err;
  EXPECT_THAT(as.out, HasSubstr("llm_int8_skip_modules"));
  std::string elsewhere = io::read_file(temp("m.json"));
  elsewhere.replace(elsewhere.find(kModel), kModel.size(), "models/elsewhere");
  io::write_file(temp("elsewhere.json"), elsewhere);
  expect_error("plan " + temp("elsewhere.json") + " --policy activation-error --budget 10% --as transformers",
               "models/elsewhere", "stands in " + temp("elsewhere.json"));
  const Outcome unread = nibble("measure " + kModel + " --effort none --rounding plain --data " +
                                temp("photos") + " -o " + temp("photos.json"));
  ASSERT_EQ(unread.code, 0) << unread.err;
  EXPECT_THAT(unread.err,
              AllOf(HasSubstr("left out"), HasSubstr("b.gif\n"), Not(HasSubstr("those that nibble ships"))));
}

TEST_F(Cli, QuantizedModelsAreNotQuantizedAgain) {
  ASSERT_EQ(nibble("quantize " + kModel + " --policy all -o " + temp("all")).code, 0);
  expect_error("quantize " + temp("all") + " --policy all -o " + temp("again"), "quantized already");
  expect_error("measure " + temp("all") + " -o " + temp("m.json"), "16-bit");
  const Outcome inspected = nibble("inspect " + temp("all"));
  EXPECT_EQ(inspected.code, 0);
  EXPECT_THAT(inspected.out, AllOf(HasSubstr("nf4"), HasSubstr("skip list")));
}

TEST_F(Cli, EightBitsAreWrittenReadAndJudged) {
  const std::string out = temp("int8");
  ASSERT_EQ(nibble("quantize " + kModel + " --policy int8 -o " + out).code, 0);
  const io::Json config = io::read_json(fs::path(out) / "config.json").at("quantization_config");
  EXPECT_EQ(config.at("load_in_8bit"), true);
  EXPECT_EQ(config.at("load_in_4bit"), false);
  EXPECT_EQ(config.at("llm_int8_skip_modules"), io::Json::array({"lm_head"}));
  const Outcome inspected = nibble("inspect --json " + out);
  const io::Json inspection = io::parse_json(inspected.out, "inspect");
  for (const auto& [name, linear] : inspection.at("storage").at("linears").items())
    EXPECT_EQ(linear.at("stored"), "int8") << name;
  const std::string ask = " --image " + kPicture + " --prompt 'Describe this image.'";
  const Outcome answer = nibble("generate " + out + ask), original = nibble("generate " + kModel + ask);
  EXPECT_EQ(answer.code, 0);
  EXPECT_EQ(answer.out, original.out);  // 8 bits do not break this model
  expect_error("quantize " + out + " --policy all -o " + temp("again"), "quantized already");

  const auto file = io::Checkpoint(out).file_of("visual.blocks.0.mlp.fc1.SCB");
  const io::SafetensorsFile tensors(file);
  const auto info = tensors.tensors().at("visual.blocks.0.mlp.fc1.SCB");
  overwrite(file, static_cast<std::streamoff>(info.begin), std::string("\0\0\x80\xff", 4));  // minus infinity
  expect_error("generate " + out + ask, "visual.blocks.0.mlp.fc1", "SCB");
}

TEST_F(Cli, QuantizeNamesOptionsThatCannotBe) {
  const std::string quantize = "quantize " + kModel + " --policy all -o ";
  expect_error(quantize + "''", "-o is empty");
  expect_error(quantize + temp("out") + " --max-shard-size 0", "--max-shard-size", "0 is no size");
  expect_error(quantize + temp("out") + " --data " + temp("none"), temp("none"), "--data");
  EXPECT_FALSE(fs::exists(temp("out")));
}

TEST_F(Cli, SizesOfNothingThatCanBe) {
  expect_error("inspect " + temp("none.json"), "none.json", "cannot open it");
  io::write_file(temp("empty.json"), "{}");
  expect_error("inspect " + temp("empty.json"), "model_type is missing");
  io::write_file(
      temp("huge.json"),
      R"({"model_type": "llama", "hidden_size": 1048576, "num_attention_heads": 65536, "head_dim": 65536,
                     "num_hidden_layers": 4096, "intermediate_size": 16777216, "vocab_size": 268435456})");
  expect_error("inspect " + temp("huge.json"), "huge.json", "self_attn", "more elements than there can be");
  io::write_file(temp("tiles.json"),
                 R"({"model_type": "mllama", "vision_config": {"image_size": 1048576, "patch_size": 1}})");
  expect_error("inspect " + temp("tiles.json"), "tiles.json", "image_size", "1048576 patches");
}

TEST_F(Cli, SizesWithoutWeightsAreThePublishedOnes) {
  const std::string configs = NIBBLE_ROOT "/tests/model/configs/";
  const auto sizes = [&](const std::string& model) {
    return nibble("inspect " + configs + model + ".json").out;
  };
  EXPECT_THAT(
      sizes("Llama-3.2-11B-Vision-Instruct"),
      AllOf(HasSubstr("10.670 B"), HasSubstr(" 521\n"), HasSubstr("19.87 GiB"), HasSubstr("6.54 GiB"),
            HasSubstr("6.69 GiB"), HasSubstr("published for Llama-3.2-11B-Vision, codes alone  7.23 GiB")));
  EXPECT_THAT(sizes("phi-4"),
              AllOf(HasSubstr("14.660 B"), HasSubstr("27.31 GiB"), HasSubstr("8.26 GiB"),
                    HasSubstr("8.46 GiB"), HasSubstr("published for phi-4, codes alone  9.49 GiB")));
  EXPECT_THAT(sizes("Llama-3.2-90B-Vision-Instruct"), AllOf(HasSubstr(" 941\n"), HasSubstr("165.02 GiB"),
                                                            HasSubstr("44.30 GiB"), HasSubstr("45.58 GiB")));
  EXPECT_THAT(sizes("pixtral-12b"),
              AllOf(HasSubstr(" 450\n"), HasSubstr("23.62 GiB"), HasSubstr("7.95 GiB")));
  EXPECT_THAT(sizes("Qwen2-VL-2B-Instruct"), HasSubstr("first upload, codes alone  1.99 GiB"));
}

TEST_F(Cli, GenerateWritesTheAnswerAndNothingElse) {
  const Outcome o =
      nibble("generate " + kModel + " --image " + kPicture + " --prompt 'Describe this image.'");
  EXPECT_EQ(o.code, 0);
  EXPECT_EQ(o.out,
            "The image shows a black train with four cars traveling left on tracks past a city at sunset.\n");
  EXPECT_EQ(o.err, "");
}

}  // namespace
}  // namespace nibble
