// What is streamed piece by piece is byte for byte what the plain writer makes of whole tensors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <map>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "base/threads.h"
#include "io/checkpoint.h"
#include "io/weight_files.h"
#include "quant/int8.h"
#include "support/temp_folder.h"
#include "write/checkpoint.h"
#include "write/items.h"
#include "write/layouts/bitsandbytes.h"
#include "write/verify.h"

namespace nibble::write {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class Streamed : public testing::Test {
 protected:
  /// Every third linear stays.
  records::Plan plan(const std::string& format = "nf4") const {
    records::Plan out;
    out.family = "qwen2_vl";
    out.policy = "test";
    out.format = format;
    int i = 0;
    for (const model::Linear* l : model::linears(source_.spec()))
      out.decisions.push_back({.name = l->name, .keep = i++ % 3 == 0, .reason = "test", .score = 0});
    out.fuse = false;
    return out;
  }

  /// The tensors of each source tensor, made as a whole.
  std::vector<std::vector<io::PlannedTensor>> whole(const records::Plan& plan) {
    std::map<std::string, const model::Linear*> rounded;
    for (const model::Linear* l : model::linears(source_.spec()))
      for (const auto& d : plan.decisions)
        if (d.name == l->name && !d.keep) rounded[source_.linear(*l).stored] = l;
    std::vector<std::vector<io::PlannedTensor>> groups;
    for (const auto& [name, info] : source_.checkpoint().tensors()) {
      const TensorView view = source_.checkpoint().tensor(name);
      const std::string stored = name.substr(0, name.size() - std::min<size_t>(name.size(), 7));
      auto& group = groups.emplace_back();
      if (!name.ends_with(".weight") || !rounded.contains(stored)) {
        group.push_back(io::planned(name, view));
        continue;
      }
      std::vector<quant::StoredTensor> tensors;
      if (plan.format == "int8")
        tensors = quant::to_tensors8(packed8_.emplace_back(quant::encode8(view)));
      else
        tensors = quant::to_tensors(packed4_.emplace_back(quant::encode4(view, quant::Format::nf4, true)));
      for (const auto& t : tensors) {
        if (t.text) texts_.push_back(t.text);
        group.push_back(io::planned((plan.format == "int8" ? stored : name) + t.suffix, t.view));
      }
    }
    return groups;
  }

  /// All safetensors files and the index.
  static std::map<std::string, std::string> weights(const fs::path& folder) {
    std::map<std::string, std::string> out;
    for (const auto& entry : fs::directory_iterator(folder))
      if (const std::string name = entry.path().filename().string();
          name.find("safetensors") != std::string::npos)
        out[name] = io::read_file(entry.path());
    return out;
  }

  void expect_same(const records::Plan& plan, int64_t max_bytes) {
    fs::remove_all(folder_ / "whole");
    fs::create_directory(folder_ / "whole");
    const int64_t total = io::write_shards(folder_ / "whole", whole(plan), max_bytes, {});
    EXPECT_EQ(write_checkpoint(source_, plan, folder_ / "out",
                               {.max_shard_bytes = max_bytes, .force = true, .version = "test"}),
              total);
    const auto expected = weights(folder_ / "whole"), found = weights(folder_ / "out");
    ASSERT_EQ(found.size(), expected.size()) << max_bytes;
    for (const auto& [name, bytes] : expected)
      EXPECT_TRUE(found.at(name) == bytes) << name << " of " << max_bytes;
  }

  test::TempFolder folder_;
  model::Binding source_{NIBBLE_ROOT "/models/qwen2-vl-tiny"};
  std::list<quant::Packed4> packed4_;
  std::list<quant::Packed8> packed8_;
  std::vector<std::shared_ptr<const std::string>> texts_;
};

TEST_F(Streamed, SameFilesForAnyShardSize) {
  for (const int64_t max : {int64_t{5'000'000'000}, int64_t{1'000'000}, int64_t{30'000}})
    expect_same(plan(), max);
}

TEST_F(Streamed, ShardsThatAreJustFull) {
  // The exact bytes of the first linears together, and one less: what the digits of one number decide.
  std::vector<int64_t> sums;
  int64_t sum = 0;
  for (const auto& group : whole(plan())) {
    for (const auto& t : group) sum += TensorView{t.dtype, t.shape, nullptr}.bytes();
    if (group.size() > 1) sums.push_back(sum);
  }
  for (const size_t i : {size_t{5}, size_t{17}}) {
    expect_same(plan(), sums.at(i));
    expect_same(plan(), sums.at(i) - 1);
  }
}

TEST_F(Streamed, EightBits) {
  expect_same(plan("int8"), 1'000'000);
}

TEST_F(Streamed, AnyNumberOfThreads) {
  const int before = num_threads();
  for (const int n : {1, 3}) {
    set_num_threads(n);
    write_checkpoint(source_, plan(), folder_ / fmt::format("t{}", n), {.version = "test"});
  }
  set_num_threads(before);
  EXPECT_TRUE(weights(folder_ / "t1") == weights(folder_ / "t3"));
  EXPECT_EQ(io::read_file(folder_ / "t1/nibble.json"), io::read_file(folder_ / "t3/nibble.json"));
}

TEST_F(Streamed, ErrorsAndDigestsAreThoseOfTheTensors) {
  write_checkpoint(source_, plan(), folder_ / "out", {.version = "test"});
  const io::Json made = io::read_json(folder_ / "out/nibble.json");
  const model::Binding read(folder_ / "out");
  for (const model::Linear* l : model::linears(read.spec())) {
    if (read.linear(*l).storage == model::Storage::plain) {
      EXPECT_FALSE(made["weight_errors"].contains(l->name));
      continue;
    }
    Tensor a, b;
    const double error = quant::weight_error(source_.weight(*l, a), read.weight(*l, b)).relative;
    EXPECT_EQ(made["weight_errors"][l->name].get<double>(), error) << l->name;
  }
  EXPECT_EQ(made["sha256"].size(), read.checkpoint().tensors().size());
  for (const auto& [name, info] : read.checkpoint().tensors()) {
    const TensorView view = read.checkpoint().tensor(name);
    EXPECT_EQ(made["sha256"][name],
              sha256({reinterpret_cast<const char*>(view.data), static_cast<size_t>(view.bytes())}));
  }
}

TEST_F(Streamed, GivenCodesAreWrittenAsTheyAre) {
  records::Plan rounded = plan();
  rounded.rounding.kind = "search";
  for (records::Decision& d : rounded.decisions)
    if (!d.keep) d.rounding = "search";
  const auto give = [&](const std::string& linear) {
    for (const model::Linear* l : model::linears(source_.spec()))
      if (l->name == linear) {
        Tensor buffer;
        quant::Packed4 packed = quant::encode4(source_.weight(*l, buffer), quant::Format::nf4, true);
        packed.codes[1] ^= 0x11;
        return packed;
      }
    throw std::runtime_error(linear);
  };
  write_checkpoint(source_, rounded, folder_ / "out", {.rounded = give, .version = "test"});
  const model::Binding read(folder_ / "out");
  for (const model::Linear* l : model::linears(read.spec()))
    if (read.linear(*l).storage != model::Storage::plain) {
      EXPECT_TRUE(read.packed(*l).codes == give(l->name).codes) << l->name;
    }
}

TEST_F(Streamed, GuessedLengthsAreNearTheRealOnes) {
  records::Plan p = plan();
  const auto items = plan_items(source_, kept_linears(source_, p, false), p);
  int open = 0;
  const auto groups = whole(p);
  for (size_t i = 0; i < items.size(); ++i) {
    int64_t real = 0;
    for (const auto& t : groups[i]) real += TensorView{t.dtype, t.shape, nullptr}.bytes();
    EXPECT_LE(std::abs(items[i].bytes() - real), items[i].exact ? 0 : bitsandbytes::kStateSlack);
    open += !items[i].exact;
  }
  EXPECT_GT(open, 50);
}

TEST_F(Streamed, ASourceThatChangesMeanwhile) {
  fs::copy(NIBBLE_ROOT "/models/qwen2-vl-tiny", folder_ / "model", fs::copy_options::recursive);
  const model::Binding source(folder_ / "model");
  const fs::path shard = folder_ / "model/model-00002-of-00003.safetensors";
  fs::resize_file(shard, fs::file_size(shard) - 1000);
  try {
    write_checkpoint(source, plan(), folder_ / "out", {.version = "test"});
    ADD_FAILURE() << "no Error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("model-00002-of-00003.safetensors: was changed while it was in use"));
  }
  EXPECT_FALSE(fs::exists(folder_ / "out"));
  EXPECT_FALSE(fs::exists(folder_ / "out.partial"));
}

class Verify : public Streamed {
 protected:
  std::vector<std::string> problems(const model::Binding* source = nullptr) {
    const model::Binding written(folder_ / "out");
    std::vector<std::string> out;
    for (const FileCheck& f : verify(written, source).files)
      out.insert(out.end(), f.problems.begin(), f.problems.end());
    return out;
  }

  void write_anew(int64_t max_shard_bytes = 5'000'000'000) {
    write_checkpoint(source_, plan(), folder_ / "out",
                     {.max_shard_bytes = max_shard_bytes, .force = true, .version = "test"});
  }

  void change_json(const std::string& name, const std::function<void(io::Json&)>& change) {
    io::Json json = io::read_json(folder_ / "out" / name);
    change(json);
    io::write_file(folder_ / "out" / name, io::dump_json(json));
  }

  /// Changes a bit of a tensor in the file, and its digest where that is asked for.
  void damage(const std::string& tensor, int64_t byte, bool digest_too) {
    const io::Checkpoint checkpoint(folder_ / "out");
    const fs::path path = checkpoint.file_of(tensor);
    std::string bytes = io::read_file(path);
    const io::TensorInfo info = checkpoint.tensors().at(tensor);
    bytes[static_cast<size_t>(info.begin + byte)] ^= 0x40;
    io::write_file(path, bytes);
    if (!digest_too) return;
    change_json("nibble.json", [&](io::Json& made) {
      made.erase("digest");
      made["sha256"][tensor] = sha256(std::string_view(bytes).substr(
          static_cast<size_t>(info.begin), static_cast<size_t>(info.end - info.begin)));
    });
  }
};

TEST_F(Verify, WhatWasWrittenIsRight) {
  for (const char* format : {"nf4", "int8"}) {
    write_checkpoint(source_, plan(format), folder_ / "out",
                     {.max_shard_bytes = 1'000'000, .force = true, .version = "test"});
    const model::Binding written(folder_ / "out");
    const auto files = verify(written, &source_).files;
    EXPECT_GT(files.size(), 3u);
    int64_t tensors = 0, rounded = 0;
    for (const FileCheck& f : files) {
      EXPECT_THAT(f.problems, testing::IsEmpty());
      tensors += f.tensors;
      rounded += f.rounded;
    }
    EXPECT_EQ(tensors, std::ssize(written.checkpoint().tensors()));
    EXPECT_EQ(rounded, 54);
  }
}

TEST_F(Verify, EveryFileButReadmeIsRecorded) {
  fs::copy(NIBBLE_ROOT "/models/qwen2-vl-tiny", folder_ / "model", fs::copy_options::recursive);
  io::write_file(folder_ / "model/README.md", "a card of the source");
  write_checkpoint(model::Binding(folder_ / "model"), plan(), folder_ / "out", {.version = "test"});
  const io::Json made = io::read_json(folder_ / "out/nibble.json");
  std::set<std::string> names;
  for (const auto& [name, digest] : made["files"].items()) {
    EXPECT_EQ(digest, sha256(io::read_file(folder_ / "out" / name))) << name;
    names.insert(name);
  }
  std::set<std::string> there;
  for (const std::string& name : io::file_names(folder_ / "out")) there.insert(name);
  for (const char* other : {"README.md", "nibble.json", "model.safetensors"})
    EXPECT_EQ(there.erase(other), 1u);
  EXPECT_EQ(names, there);
  EXPECT_TRUE(names.contains("config.json") && names.contains("tokenizer.json"));
  io::write_file(folder_ / "out/README.md", "another card");
  EXPECT_THAT(problems(), testing::IsEmpty());
}

TEST_F(Verify, FilesBesideTheWeights) {
  write_anew(1'000'000);
  io::write_file(folder_ / "out/tokenizer.json", io::read_file(folder_ / "out/tokenizer.json") + " ");
  fs::remove(folder_ / "out/preprocessor_config.json");
  io::write_file(folder_ / "out/extra.safetensors", "");
  EXPECT_THAT(problems(),
              testing::ElementsAre(HasSubstr("out/extra.safetensors: is no part of what was written"),
                                   HasSubstr("out/preprocessor_config.json: is missing"),
                                   HasSubstr("out/tokenizer.json: is not what was written")));
}

TEST_F(Verify, WhatReadersLookForByNameIsNoBystander) {
  write_anew(1'000'000);
  const std::vector<std::string> strays = {
      "adapter_config.json", "added_tokens.json", "chat_template.jinja",    "modeling_evil.py",
      "other.index.json",    "pytorch_model.bin", "special_tokens_map.json"};
  for (const std::string& name : strays) io::write_file(folder_ / "out" / name, "{}");
  fs::create_directory(folder_ / "out/chat_templates");
  for (const char* name : {"README.md", "report.html", ".gitattributes", "picture.png"})
    io::write_file(folder_ / "out" / name, "");
  fs::create_directory(folder_ / "out/.cache");
  const auto found = problems();
  ASSERT_EQ(found.size(), strays.size() + 1);
  for (const std::string& name : strays)
    EXPECT_THAT(found, testing::Contains(HasSubstr("out/" + name + ": is no part of what was written")));
  EXPECT_THAT(found, testing::Contains(HasSubstr("out/chat_templates: is no part")));
}

TEST_F(Verify, TheRecordAndTheIndexAreWhatWasWritten) {
  write_anew(1'000'000);
  change_json("model.safetensors.index.json", [](io::Json& index) { index["metadata"]["total_size"] = 1; });
  EXPECT_THAT(problems(), testing::ElementsAre(HasSubstr("index.json: is not what belongs to these files")));
  const io::Json changes = {
      {"command", "nibble"}, {"tensor_bytes", 1}, {"weight_errors", io::Json::object()}};
  for (const auto& change : changes.items()) {
    write_anew(1'000'000);
    change_json("nibble.json", [&](io::Json& made) { made[change.key()] = change.value(); });
    EXPECT_THAT(problems(), testing::ElementsAre(HasSubstr("nibble.json: is not what was written")))
        << change.key();
  }
}

TEST_F(Verify, ShardsHaveTheirNamesAndMetadata) {
  write_anew(1'000'000);
  const fs::path first = model::Binding(folder_ / "out").checkpoint().files().front();
  std::string bytes = io::read_file(first);
  const size_t at = bytes.find(R"("format":"pt")");
  ASSERT_NE(at, std::string::npos);
  bytes.replace(at, 13, R"("format":"tf")");
  io::write_file(first, bytes);
  EXPECT_THAT(problems(), testing::ElementsAre(HasSubstr("its metadata are not what was written")));
  write_anew(1'000'000);
  const std::string name = first.filename().string();
  fs::rename(first, folder_ / "out/model-00000.safetensors");
  change_json("model.safetensors.index.json", [&](io::Json& index) {
    for (auto& [tensor, file] : index["weight_map"].items())
      if (file == name) file = "model-00000.safetensors";
  });
  EXPECT_THAT(problems(), testing::ElementsAre(HasSubstr("was written as " + name)));
}

TEST_F(Verify, TheSkipListIsThatOfThePlan) {
  write_anew();
  change_json("config.json", [](io::Json& config) {
    config["quantization_config"]["llm_int8_skip_modules"].push_back("model.layers.0");
    config["quantization_config"].erase("quant_method");
  });
  const auto of_plan = HasSubstr(
      "out/config.json: quantization_config is not what the plan in nibble.json gives "
      "(llm_int8_skip_modules, "
      "quant_method)");
  EXPECT_THAT(problems(),
              testing::ElementsAre(of_plan, HasSubstr("out/config.json: is not what was written")));
  change_json("nibble.json", [](io::Json& made) {
    made.erase("files");
    made.erase("digest");
  });
  EXPECT_THAT(problems(), testing::ElementsAre(of_plan)) << "also where the file's digest was not recorded";
}

TEST_F(Verify, OlderRecordsAreOfTensorsAlone) {
  write_anew();
  EXPECT_TRUE(verify(model::Binding(folder_ / "out"), nullptr).sides_recorded);
  change_json("nibble.json", [](io::Json& made) {
    made.erase("files");
    made.erase("digest");
  });
  fs::remove(folder_ / "out/preprocessor_config.json");
  EXPECT_FALSE(verify(model::Binding(folder_ / "out"), nullptr).sides_recorded);
  EXPECT_THAT(problems(), testing::IsEmpty());
  io::write_file(folder_ / "out/extra.safetensors", "");
  EXPECT_THAT(problems(), testing::ElementsAre(HasSubstr("out/extra.safetensors: is no part")));
  fs::remove(folder_ / "out/extra.safetensors");
  damage("model.layers.0.input_layernorm.weight", 3, false);
  EXPECT_THAT(problems(), testing::ElementsAre(HasSubstr("SHA-256")));
}

TEST_F(Verify, EveryKindOfDamageIsNamed) {
  const std::string kept = "model.layers.0.input_layernorm.weight",
                    codes = "model.layers.2.mlp.down_proj.weight";
  records::Plan p = plan();
  for (records::Decision& d : p.decisions)
    if (d.name + ".weight" == codes) d.keep = false;
  const auto anew = [&] {
    write_checkpoint(source_, p, folder_ / "out", {.force = true, .version = "test"});
  };
  anew();
  damage(kept, 3, false);
  damage(codes, 77, false);
  EXPECT_THAT(
      problems(),
      testing::UnorderedElementsAre(
          testing::AllOf(HasSubstr("model.safetensors: tensor " + kept), HasSubstr("SHA-256")),
          testing::AllOf(HasSubstr("model.safetensors: tensor " + codes + " "), HasSubstr("SHA-256"))));
  anew();
  damage(kept, 3, true);
  damage(codes, 77, true);
  EXPECT_THAT(problems(), testing::IsEmpty()) << "only the source tells";
  EXPECT_THAT(problems(&source_),
              testing::UnorderedElementsAre(HasSubstr(kept + " is not the source's"),
                                            testing::AllOf(HasSubstr(codes), HasSubstr("weight error"))));
}

}  // namespace
}  // namespace nibble::write
