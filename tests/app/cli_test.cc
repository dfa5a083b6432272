// The program as users call it: exit codes, the one line of an error, and that nothing is half written.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/error.h"
#include "io/checkpoint.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "support/temp_folder.h"
#include "text/tokenizer.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

const std::string kModel = NIBBLE_ROOT "/models/qwen2-vl-tiny";
const std::string kPicture = NIBBLE_ROOT "/pictures/evaluation/images/0000.png";

struct Outcome {
  int code = -1;
  std::string out, err;
};

class Cli : public testing::Test {
 protected:
  Outcome nibble(const std::string& arguments) {
    const fs::path out = folder_.path() / "stdout", err = folder_.path() / "stderr";
    const std::string command =
        fmt::format("'{}' {} >'{}' 2>'{}'", NIBBLE_BINARY, arguments, out.string(), err.string());
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, io::read_file(out), io::read_file(err)};
  }

  /// Exit 2 and one line that says all of `parts`.
  template <typename... Parts>
  void expect_error(const std::string& arguments, const Parts&... parts) {
    const Outcome o = nibble(arguments);
    EXPECT_EQ(o.code, 2) << arguments << "\n" << o.out << o.err;
    EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
    EXPECT_THAT(o.err, AllOf(testing::StartsWith("nibble: "), HasSubstr(parts)...)) << arguments;
    EXPECT_EQ(o.out, "") << arguments;
  }

  /// A copy of the model's folder whose files may be changed.
  fs::path copy_model(const std::string& name) {
    const fs::path to = folder_.path() / name;
    fs::copy(kModel, to, fs::copy_options::recursive);
    return to;
  }

  std::string temp(const std::string& name) const { return (folder_.path() / name).string(); }

  test::TempFolder folder_;
};

void overwrite(const fs::path& file, std::streamoff at, const std::string& bytes) {
  std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
  f.seekp(at);
  f.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

TEST_F(Cli, HelpShowsAnExampleForEachCommand) {
  for (const char* command :
       {"inspect", "measure", "plan", "quantize", "verify", "eval", "compare", "report", "card", "generate",
        "trace"}) {
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

TEST_F(Cli, Data) {
  expect_error("measure " + kModel + " -o " + temp("m.json") + " --data " + temp("none.jsonl"), "none.jsonl");
  io::write_file(temp("bad.jsonl"), "{\"text\": \"fine\"}\n{\"text\": 4}\n");
  expect_error("measure " + kModel + " -o " + temp("m.json") + " --data " + temp("bad.jsonl"), "bad.jsonl:2");
  io::write_file(temp("missing.jsonl"), "{\"image\": \"gone.png\", \"prompt\": \"What?\"}\n");
  expect_error("measure " + kModel + " -o " + temp("m.json") + " --data " + temp("missing.jsonl"),
               "missing.jsonl:1", "gone.png");
  EXPECT_FALSE(fs::exists(temp("m.json")));
}

TEST_F(Cli, OutputFolders) {
  fs::create_directory(temp("there"));
  io::write_file(temp("there/keep.txt"), "mine");
  expect_error("quantize " + kModel + " --policy all -o " + temp("there"), "there", "--force");
  EXPECT_EQ(io::read_file(temp("there/keep.txt")), "mine");
  expect_error("quantize " + kModel + " --policy all --force -o " + temp("there"), "there");
  EXPECT_EQ(io::read_file(temp("there/keep.txt")), "mine")
      << "a folder that is no checkpoint is never replaced";
  expect_error("quantize " + kModel + " --policy all -o /proc/nibble-cannot-write-here", "/proc");
}

TEST_F(Cli, TheSourceIsNeverReplaced) {
  const fs::path model = copy_model("source");
  expect_error("quantize " + model.string() + " --policy all --force -o " + model.string(),
               "16-bit checkpoint itself");
  expect_error("quantize " + model.string() + " --policy all --force -o " + folder_.path().string(),
               "16-bit checkpoint itself");
  EXPECT_TRUE(fs::exists(model / "model-00001-of-00003.safetensors"));
}

TEST_F(Cli, OnlyRegularFilesAreWritten) {
  // A pipe stands for a device: what a test may replace by mistake must be its own.
  const std::string pipe = temp("pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const std::string& command : {"trace " + kModel + " --prompt Hi -o ", "measure " + kModel + " -o "})
    expect_error(command + pipe, "pipe", "regular file");
  EXPECT_TRUE(fs::is_fifo(pipe));
  io::write_file(temp("target.json"), "{}");
  fs::create_symlink("target.json", temp("link.json"));
  io::write_file(temp("link.json"), "[]");
  EXPECT_TRUE(fs::is_symlink(temp("link.json")));
  EXPECT_EQ(io::read_file(temp("target.json")), "[]");
  io::write_file(temp("m.json"), "{}");
  expect_error("plan " + temp("m.json") + " -o " + temp("m.json"), "would be replaced");
}

TEST_F(Cli, ErrorsNeedNoReader) {
  const std::string command = fmt::format("'{}' inspect /nowhere 2>&-", NIBBLE_BINARY);
  EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 2);
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
  for (const char* command : {"compare ", "eval ", "measure "})
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

TEST_F(Cli, FullDiskLeavesNothingBehind) {
  // A limit on the file size stands for the full disk: the write fails half way.
  const fs::path out = folder_.path() / "stdout", err = folder_.path() / "stderr";
  const std::string command =
      fmt::format("bash -c 'ulimit -f 1000; trap \"\" XFSZ; \"{}\" quantize {} --policy all -o {} 2>{}'",
                  NIBBLE_BINARY, kModel, temp("full"), err.string());
  const int status = std::system(command.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 2);
  EXPECT_THAT(io::read_file(err), HasSubstr("cannot write it: File too large"));
  EXPECT_FALSE(fs::exists(temp("full")));
  EXPECT_FALSE(fs::exists(temp("full.partial")));
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
  expect_error(quantize + temp("out") + " --max-shard-size 0", "--max-shard-size", "positive");
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
  const auto sizes = [&](const std::string& model) { return nibble("inspect " + configs + model + ".json").out; };
  EXPECT_THAT(sizes("Llama-3.2-11B-Vision-Instruct"),
              AllOf(HasSubstr("10.670 B"), HasSubstr(" 521\n"), HasSubstr("19.87 GiB"), HasSubstr("6.54 GiB"),
                    HasSubstr("6.69 GiB"), HasSubstr("published for Llama-3.2-11B-Vision, codes alone  7.23 GiB")));
  EXPECT_THAT(sizes("phi-4"), AllOf(HasSubstr("14.660 B"), HasSubstr("27.31 GiB"), HasSubstr("8.26 GiB"),
                                    HasSubstr("8.46 GiB"), HasSubstr("published for phi-4, codes alone  9.49 GiB")));
  EXPECT_THAT(sizes("Llama-3.2-90B-Vision-Instruct"),
              AllOf(HasSubstr(" 941\n"), HasSubstr("165.02 GiB"), HasSubstr("44.30 GiB"), HasSubstr("45.58 GiB")));
  EXPECT_THAT(sizes("pixtral-12b"), AllOf(HasSubstr(" 450\n"), HasSubstr("23.62 GiB"), HasSubstr("7.95 GiB")));
  EXPECT_THAT(sizes("Qwen2-VL-2B-Instruct"), HasSubstr("first upload, codes alone  1.99 GiB"));
}

TEST_F(Cli, TheSameBytesForAnyNumberOfThreads) {
  const std::string data = " --data " NIBBLE_ROOT "/pictures/calibration/samples.jsonl --budget 20% -o ";
  ASSERT_EQ(nibble("quantize --threads 1 " + kModel + data + temp("one")).code, 0);
  ASSERT_EQ(nibble("quantize --threads 3 " + kModel + data + temp("three")).code, 0);
  int files = 0;
  for (const auto& entry : fs::directory_iterator(temp("one"))) {
    const std::string name = entry.path().filename().string();
    if (name == "nibble.json") continue;  // holds the command, which differs
    EXPECT_EQ(io::read_file(entry.path()), io::read_file(fs::path(temp("three")) / name)) << name;
    ++files;
  }
  EXPECT_GT(files, 5);
  const auto one = io::read_json(fs::path(temp("one")) / "nibble.json");
  const auto three = io::read_json(fs::path(temp("three")) / "nibble.json");
  EXPECT_EQ(one["plan"], three["plan"]);
}

TEST_F(Cli, TheMainJobRestoresTheModel) {
  const std::string data = " --data " NIBBLE_ROOT "/pictures/";
  ASSERT_EQ(nibble("quantize " + kModel + " --policy all -o " + temp("all")).code, 0);
  ASSERT_EQ(nibble("quantize " + kModel + data + "calibration --budget 28% -o " + temp("dynamic")).code, 0);
  const auto kl = [&](const std::string& model) {
    const Outcome o =
        nibble("eval " + model + data + "evaluation --compute f32 --against " + kModel + " --json -");
    EXPECT_EQ(o.code, 0) << o.err;
    return io::parse_json(o.out, "eval")["answers"]["kl"]["mean"].get<double>();
  };
  const double all = kl(temp("all")), dynamic = kl(temp("dynamic"));
  EXPECT_GT(all, 0.05) << "the planted outliers break the all-4-bit model";
  EXPECT_LT(dynamic, 0.01 * all);

  // By activation errors of plain codes, the plan finds the linears that were planted, without having been told.
  ASSERT_EQ(nibble("quantize " + kModel + data + "calibration --budget 28% --rounding plain --effort none -o " + temp("plain")).code,
            0);
  EXPECT_LT(kl(temp("plain")), 0.01 * all);
  const auto report = io::read_json(kModel + "/training_report.json");
  std::set<std::string> kept;
  const auto made = io::read_json(fs::path(temp("plain")) / "nibble.json");
  for (const auto& decision : made["plan"]["decisions"])
    if (decision["keep"].get<bool>()) kept.insert(decision["name"].get<std::string>());
  const auto published = [](std::string name) {
    for (const auto& [from, to] :
         {std::pair{"model.visual.", "visual."}, std::pair{"model.language_model.", "model."}})
      if (name.starts_with(from)) return to + name.substr(std::string(from).size());
    return name;
  };
  int found = 0;
  for (const auto& plant : report["planted"]) {
    bool all_readers = true;
    for (const auto& reader : plant["readers"])
      all_readers &= kept.contains(published(reader.get<std::string>()));
    found += all_readers;
  }
  EXPECT_EQ(report["planted"].size(), 8u);
  EXPECT_GE(found, 7);
}

TEST_F(Cli, ReportAndCardOfAWrittenCheckpoint) {
  io::write_file(temp("few.jsonl"), "{\"image\": \"" + kPicture + "\", \"prompt\": \"Describe this image.\", "
                                    "\"answer\": \"Nothing.\"}\n");
  const std::string few = " --data " + temp("few.jsonl");
  ASSERT_EQ(nibble("measure " + kModel + few + " -o " + temp("m.json")).code, 0);
  ASSERT_EQ(nibble("quantize " + kModel + " --measurements " + temp("m.json") + " -o " + temp("q")).code, 0);
  ASSERT_EQ(nibble("eval " + temp("q") + few + " --against " + kModel + " --json " + temp("e.json")).code, 0);
  const Outcome compare = nibble("compare " + kModel + " " + temp("q") + few + " --json");
  ASSERT_EQ(compare.code, 0);
  io::write_file(temp("c.json"), compare.out);
  const std::string records = " --measurements " + temp("m.json") + " --plan " + temp("q/nibble.json") +
                              " --compare " + temp("c.json") + " --evaluation 'a <b>=" + temp("e.json") + "' -o ";
  ASSERT_EQ(nibble("report" + records + temp("a.html")).code, 0);
  ASSERT_EQ(nibble("report" + records + temp("b.html")).code, 0);
  const std::string html = io::read_file(temp("a.html"));
  EXPECT_EQ(html, io::read_file(temp("b.html")));
  for (const char* part : {"visual.blocks.0.mlp.fc1", "a &lt;b&gt;", "The models compared"})
    EXPECT_TRUE(html.find(part) != std::string::npos) << part;
  // Of one model alone, what is not as expected is shown with its picture.
  ASSERT_EQ(nibble("report --evaluation one=" + temp("e.json") + " -o " + temp("one.html")).code, 0);
  const std::string one = io::read_file(temp("one.html"));
  for (const char* part : {"src=\"data:image/png;base64,", "<dt>expected</dt><dd>Nothing.</dd>", "<mark>The image shows"})
    EXPECT_TRUE(one.find(part) != std::string::npos) << part;

  expect_error("report -o " + temp("n.html"), "nothing to report");
  expect_error("report --evaluation " + temp("e.json") + " -o " + temp("n.html"), "NAME=FILE");
  expect_error("report --plan " + temp("m.json") + " -o " + temp("n.html"), "m.json");
  io::Json other = io::read_json(temp("m.json"));
  for (const char* list : {"linears", "errors"}) {
    io::Json& items = list == std::string("errors") ? other["errors"] : other["inventory"]["linears"];
    items[0]["name"] = "another";
  }
  io::write_file(temp("other.json"), io::dump_json(other));
  expect_error("report --plan " + temp("q/nibble.json") + " --measurements " + temp("other.json") + " -o " + temp("n.html"),
               "other linears");
  EXPECT_FALSE(fs::exists(temp("n.html")));

  ASSERT_EQ(nibble("card " + temp("q") + " --evaluation dynamic=" + temp("e.json")).code, 0);
  const std::string card = io::read_file(temp("q/README.md"));
  EXPECT_THAT(card, AllOf(testing::StartsWith("---\nlibrary_name: transformers\n"), HasSubstr("# q\n"),
                          HasSubstr("Qwen2VLForConditionalGeneration.from_pretrained"), HasSubstr("| dynamic |"),
                          HasSubstr("    nibble quantize "), testing::Not(HasSubstr("base_model"))));
  ASSERT_EQ(nibble("card " + temp("q") + " --base-model Org/Base").code, 0) << "its own card may be replaced";
  EXPECT_THAT(io::read_file(temp("q/README.md")), HasSubstr("base_model: Org/Base\n"));
  io::write_file(temp("q/README.md"), "# mine\n");
  expect_error("card " + temp("q"), "README.md", "--force");
  EXPECT_EQ(io::read_file(temp("q/README.md")), "# mine\n");
  EXPECT_EQ(nibble("card " + temp("q") + " --force").code, 0);
  expect_error("card " + kModel, "nibble.json");
  expect_error("card " + temp("q") + " --base-model ../x", "ORG/NAME");
}

/// Comparisons that make their checkpoints, in scratch folders under a folder of the test's own.
class Policies : public Cli {
 protected:
  void SetUp() override {
    fs::create_directory(temp("scratch"));
    setenv("TMPDIR", temp("scratch").c_str(), 1);
    write_samples("calibration", 8);
    write_samples("evaluation", 3);
    std::ofstream(temp("evaluation.jsonl"), std::ios::app)
        << "{\"prompt\": \"What is a train?\", \"answer\": \"A train\"}\n{\"text\": \"The image shows a "
           "train.\"}\n";
  }
  void TearDown() override {
    unsetenv("TMPDIR");
    EXPECT_TRUE(fs::is_empty(temp("scratch")));
  }

  /// The first pictures that nibble ships, with what is first asked about them.
  void write_samples(const std::string& set, int n) {
    const fs::path folder = fs::path(NIBBLE_ROOT) / "pictures" / set;
    std::ifstream all(folder / "samples.jsonl");
    std::ofstream few(temp(set + ".jsonl"));
    std::string line;
    for (int i = 0; i < 2 * n && std::getline(all, line); ++i) {
      io::Json sample = io::parse_json(line, set);
      sample["image"] = (folder / sample["image"].get<std::string>()).string();
      if (i % 2 == 0) few << sample.dump() << "\n";
    }
  }

  const std::string kMaking = "compare " + kModel + " --compute f32 --budget 28% ";
  const std::string kData = "--data " + temp("evaluation.jsonl");
};

TEST_F(Policies, AreWhatQuantizingByHandGives) {
  const Outcome o =
      nibble(kMaking + kData + " --json --policies none,all,projections,dynamic --seeds 1 --calibration " +
             temp("calibration.jsonl"));
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.err, AllOf(HasSubstr(temp("scratch")), HasSubstr(" MiB")));
  const io::Json rows = io::parse_json(o.out, "compare");
  ASSERT_EQ(rows.size(), 4u);
  const io::Json& dynamic = rows[3];

  ASSERT_EQ(nibble("quantize " + kModel + " --compute f32 --budget 28% --data " + temp("calibration.jsonl") +
                   " -o " + temp("dynamic"))
                .code,
            0);
  const Outcome by_hand =
      nibble("compare --json --compute f32 " + kModel + " " + temp("dynamic") + " " + kData);
  ASSERT_EQ(by_hand.code, 0) << by_hand.err;
  const io::Json hand = io::parse_json(by_hand.out, "compare");
  EXPECT_EQ(dynamic["plan"], io::read_json(fs::path(temp("dynamic")) / "nibble.json")["plan"]);
  for (const char* key : {"description", "unchanged", "bytes"}) EXPECT_EQ(dynamic[key], hand[1][key]) << key;
  io::Json same = dynamic["evaluation"];
  EXPECT_EQ(same["model"], kModel + ", policy dynamic");
  same["model"] = temp("dynamic");
  EXPECT_EQ(same, hand[1]["evaluation"]);
  EXPECT_EQ(rows[0]["evaluation"], hand[0]["evaluation"]);

  EXPECT_EQ(rows[0]["policy"], "none");
  EXPECT_EQ(dynamic["rounding"], "feedback");
  EXPECT_EQ(rows[1]["rounding"], "plain");
  EXPECT_EQ(dynamic["over_budget"], false);
  EXPECT_EQ(rows[2]["over_budget"], true) << "the projections of this model take 30 %";
  EXPECT_FALSE(rows[1].contains("spread")) << "all-4-bit depends on no calibration";
  for (const auto& [kind, totals] :
       {std::pair{"pictures", "picture_answers"}, {"prompts", "prompt_answers"}, {"texts", "texts"}}) {
    const double kl = dynamic["evaluation"][totals]["kl"]["mean"].get<double>();
    EXPECT_LE(dynamic["spread"][kind]["low"].get<double>(), kl) << kind;
    EXPECT_GE(dynamic["spread"][kind]["high"].get<double>(), kl) << kind;
    EXPECT_LT(dynamic["spread"][kind]["low"].get<double>(), dynamic["spread"][kind]["high"].get<double>())
        << kind;
  }
}

TEST_F(Policies, ShowATable) {
  const Outcome o = nibble(kMaking + kData + " --no-generate --policies int8,projections");
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out,
              AllOf(HasSubstr("16 bit"), HasSubstr("8 bit (over the budget)"), HasSubstr("KL, pictures"),
                    HasSubstr("KL, prompts"), HasSubstr("KL, texts"), HasSubstr("Rounding")));
}

TEST_F(Policies, ErrorsLeaveNothingBehind) {
  expect_error(kMaking + kData + " --policies best", "best", "dynamic");
  expect_error("compare " + kModel + " " + kModel + " --budget 28%", "--budget", "one 16-bit model");
  expect_error("compare " + kModel + " " + kModel + " --seeds 2", "--seeds", "2 were given");
  expect_error(kMaking + "--data " + temp("none.jsonl"), "none.jsonl");
  expect_error(kMaking + "--policies random:1,list:" + temp("list.txt") + " " + kData, "list.txt");
  ASSERT_EQ(nibble("quantize " + kModel + " --policy all -o " + temp("all")).code, 0);
  expect_error("compare --budget 28% " + temp("all") + " " + kData, "quantized already");
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
